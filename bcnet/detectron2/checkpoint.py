"""detectron2 checkpointer that also loads bcnet's and the published code's checkpoints."""

from __future__ import annotations

from detectron2.checkpoint import DetectionCheckpointer

from bcnet.checkpoint import names, read_checkpoint, to_bcnet, to_detectron2
from bcnet.modeling.mask_heads import plain_head_to_bilayer


class BCNetCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` that also loads models of bcnet's own trainer and of the published BCNet code.

    Their tensors are renamed to detectron2's names; only the model is loaded from such a file. The plain mask head of
    detectron2's Mask R-CNN initialises a bilayer head's occludee, as in bcnet's own trainer. ``.safetensors`` files
    are supported, too. Other files, and all writing, are left to the parent class.
    """

    def _load_file(self, filename: str) -> dict:
        content = read_checkpoint(filename) if filename.endswith(".safetensors") else super()._load_file(filename)
        state = content["model"]
        try:
            dialect = names.recognise(state)
        except ValueError:  # not a dialect of bcnet: left to the parent
            return content
        if dialect in (names.BCNET, names.PUBLISHED):
            return {"model": to_detectron2(to_bcnet(state).state)}
        if dialect == names.DETECTRON2 and any("mask_head.mask_fcn1." in key for key in state):
            conversion = to_bcnet(state)
            plain_head_to_bilayer(conversion, to_bcnet(self.model.state_dict()).state)
            # What the engine's models do not have, such as another backbone or a cascade, stays as it is.
            others = {entry.key: state[entry.key] for entry in conversion.left_out}
            content["model"] = others | to_detectron2(conversion.state)
        return content
