"""detectron2's checkpointer, for checkpoints of the stand-alone trainer too."""

from __future__ import annotations

from detectron2.checkpoint import DetectionCheckpointer

from bcnet.checkpoint import names, read_checkpoint, to_bcnet, to_detectron2
from bcnet.modeling.mask_heads import plain_head_to_bilayer


class BCNetCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` that also loads models of the stand-alone trainer and of the published BCNet code.

    Their tensors get the names that they have here; nothing but the model is taken from such a file. The plain
    mask head of detectron2's Mask R-CNN initialises a bilayer head's occludee, as in the stand-alone trainer.
    ``.safetensors`` files are read, too. Everything else, and all writing, is the parent's.
    """

    def _load_file(self, filename: str) -> dict:
        content = read_checkpoint(filename) if filename.endswith(".safetensors") else super()._load_file(filename)
        state = content["model"]
        try:
            dialect = names.recognise(state)
        except ValueError:  # not ours: the parent may know more
            return content
        if dialect in (names.BCNET, names.PUBLISHED):
            return {"model": to_detectron2(to_bcnet(state).state)}
        if dialect == names.DETECTRON2 and any("mask_head.mask_fcn1." in key for key in state):
            conversion = to_bcnet(state)
            plain_head_to_bilayer(conversion, to_bcnet(self.model.state_dict()).state)
            content["model"] = to_detectron2(conversion.state)
        return content
