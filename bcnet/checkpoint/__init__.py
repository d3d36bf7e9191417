"""Checkpoints and weights files: safe loading, atomic saving, and conversion of weights of other code bases.

`load_weights` loads weights of any known origin into a model, `convert_checkpoint` writes them to a file under our or
detectron2's names. `names` renames tensors, `convert` converts values, `urls` downloads, `files` reads and writes the
file formats, and `report` tabulates the result for every tensor.
"""

from bcnet.checkpoint.convert import Conversion, convert_checkpoint, to_bcnet, to_detectron2
from bcnet.checkpoint.files import half_precision, read_checkpoint, weights_of, write_checkpoint, write_weights
from bcnet.checkpoint.load import load_weights, read_model_file
from bcnet.checkpoint.report import LoadReport, conversion_table
from bcnet.checkpoint.urls import local_path

__all__ = [
    "Conversion",
    "LoadReport",
    "conversion_table",
    "convert_checkpoint",
    "half_precision",
    "load_weights",
    "local_path",
    "read_checkpoint",
    "read_model_file",
    "to_bcnet",
    "to_detectron2",
    "weights_of",
    "write_checkpoint",
    "write_weights",
]
