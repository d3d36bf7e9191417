"""detectron2's checkpointer, for checkpoints of the stand-alone engine too."""

from __future__ import annotations

from detectron2.checkpoint import DetectionCheckpointer

from bcnet.checkpoint import names, read_checkpoint, to_bcnet, to_detectron2


class BCNetCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` that also loads models of the stand-alone engine and of the published BCNet code.

    Their tensors get the names that they have here; nothing but the model is taken from such a file.
    ``.safetensors`` files are read, too. Files of detectron2 are loaded, and all files written, as by the parent.
    """

    def _load_file(self, filename: str) -> dict:
        content = read_checkpoint(filename) if filename.endswith(".safetensors") else super()._load_file(filename)
        try:
            dialect = names.recognise(content["model"])
        except ValueError:  # not ours: the parent may know more
            return content
        if dialect in (names.BCNET, names.PUBLISHED):
            return {"model": to_detectron2(to_bcnet(content["model"]).state)}
        return content
