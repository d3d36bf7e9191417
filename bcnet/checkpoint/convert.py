"""Conversion of weights: from other code bases to our names and values, and from ours to detectron2's names.

Letters: K classes.

Changes of values besides names, per origin:

detectron2 and the published code: nothing.

Caffe2's ImageNet ResNets: a BatchNorm that was merged into a scale and a shift gets mean 0 and variance 1, as
detectron2 does; our BatchNorm adds the same epsilon (1e-5) to the variance as detectron2's.

torchvision's detectors: the background is class 0 there and the last one here, and their 91 outputs stand for
COCO's category ids, of which 80 are in use, in the same order as our classes. Their FCOS measures distances from
the cell's corner x * stride, ours from its centre (x + 1/2) * stride: half a stride goes into the bias. It has no
scale per level: 1.

Differences to torchvision that no conversion of weights can remove: its Mask R-CNN and Faster R-CNN pool with
``aligned=False`` and two samples per bin, round their anchors, take strides from the padded image (61, not 64, for
P6 of 800 pixels), and compute COCO weights' frozen BatchNorm without epsilon; its FCOS clips a distance at 0, here
at half a stride. With random weights and an 800 x 1056 image, features, RPN and FCOS logits agree to 1e-5 of
their standard deviation and FCOS boxes to 1e-3 strides at 98 % of the points; box and mask heads agree exactly on
equal RoI features, and with their own pooling differ by 7 % of the logits' standard deviation (root mean square).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bcnet.checkpoint import names
from bcnet.checkpoint.files import check_output, half_precision, read_checkpoint, weights_of, write_weights
from bcnet.checkpoint.urls import local_path

# Unused category ids of COCO in 1..90.
_UNUSED_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = [i for i in range(1, 91) if i not in _UNUSED_COCO_IDS]

_NO_WEIGHT = re.compile(r"(.*\.)?pixel_(mean|std)|.*anchor_generator\..*|.*_momentum|lr")
_CLASSIFIER = re.compile(r"(stem\.)?(fc|linear)\.(weight|bias)|(pred|fc1000|last_out_L1000)_[wb]")
_BACKBONES = (names.CAFFE2, names.DETECTRON2_BACKBONE, names.TORCHVISION_BACKBONE)


class LeftOut(NamedTuple):
    """A skipped tensor of the file.

    Attributes:
        harmless: whether the model's output is the same without it.
    """

    key: str
    shape: tuple[int, ...]
    reason: str
    harmless: bool


@dataclass
class Conversion:
    """A file's weights under our names.

    Attributes:
        dialect: naming scheme of the file (`bcnet.checkpoint.names`).
        state: tensors by our names.
        sources: the name of each in the file, "" for a value implied by the format.
        left_out: tensors of the file that are skipped.
    """

    dialect: str
    state: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def rename(self, key: str, new_key: str) -> None:
        self.state[new_key] = self.state.pop(key)
        self.sources[new_key] = self.sources.pop(key)

    def leave_out(self, key: str, reason: str, *, harmless: bool) -> None:
        tensor, source = self.state.pop(key), self.sources.pop(key)
        self.left_out.append(LeftOut(source or key, tuple(tensor.shape), reason, harmless))


def to_bcnet(
    state: Mapping[str, Tensor],
    *,
    num_classes: int | None = None,
    own: Collection[str] = (),
    dialect: str | None = None,
) -> Conversion:
    """Converts weights of any known origin to our names.

    Args:
        state: tensors by the file's names.
        num_classes: K of the target model. Of torchvision's 91 outputs, 80 remain unless K is 90.
        own: names of that model's tensors; a key of the file without a rule keeps its name if it is one of them.
        dialect: naming scheme of the file; None detects it.

    Raises:
        ValueError: names of an unknown model.
    """
    dialect = dialect or names.recognise(state)
    renamer = names.renamer(dialect, state)
    conversion = Conversion(dialect)
    for key, tensor in state.items():
        ours = renamer.to_ours(key) or (key if key in own else None)
        shape = tuple(tensor.shape)
        if _NO_WEIGHT.fullmatch(key):
            conversion.left_out.append(LeftOut(key, shape, "a constant, not a weight", True))
        elif dialect in _BACKBONES and _CLASSIFIER.fullmatch(key):
            conversion.left_out.append(LeftOut(key, shape, "ImageNet classifier", True))
        elif dialect == names.CAFFE2 and key == "conv1_b":
            conversion.left_out.append(LeftOut(key, shape, "not used by detectron2 either", True))
        elif ours is None:
            conversion.left_out.append(LeftOut(key, shape, "no such layer in bcnet", False))
        elif ours in conversion.state:
            conversion.left_out.append(LeftOut(key, shape, f"{conversion.sources[ours]} is the same layer", False))
        else:
            conversion.state[ours] = tensor
            conversion.sources[ours] = key
    if dialect == names.CAFFE2:
        _add_batch_statistics(conversion)
    elif dialect == names.TORCHVISION:
        _reorder_classes(conversion.state, num_classes)
        _move_fcos_points(conversion)
    return conversion


def to_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames our weights to the names of the detectron2 plugin (and, without a bilayer head, of detectron2 itself).

    Raises:
        ValueError: keys without a detectron2 name; lists them.
    """
    renamer = names.renamer(names.DETECTRON2, state)
    renamed = {key: renamer.from_ours(key) for key in state}
    unknown = [key for key, theirs in renamed.items() if theirs is None]
    if unknown:
        raise ValueError(f"{len(unknown)} tensors have no detectron2 name: {', '.join(unknown[:10])}")
    return {theirs: state[key] for key, theirs in renamed.items() if theirs is not None}


def convert_checkpoint(input: str, output: str, to: str = names.BCNET, *, precision: str = "fp32") -> Conversion:
    """Reads weights of any known origin and writes them under our or detectron2's names.

    Args:
        input: path or URL, see `bcnet.checkpoint.local_path`.
        output: ``.pth`` or ``.safetensors``. Class names and, for "bcnet", the config of the training are copied.
        to: "bcnet" or "detectron2".
        precision: "fp32" leaves the tensors as they are; "fp16" halves the file (`half_precision`).

    Returns:
        Conversion: the written tensors, under our names, and the skipped ones.

    Raises:
        FileNotFoundError: no such input.
        OSError: the output cannot be written, or the input cannot be downloaded.
        ValueError: an input that cannot be read or is of no known origin, another suffix or target, or both
            files are the same.
    """
    if to not in (names.BCNET, names.DETECTRON2):
        raise ValueError(f"weights are converted to 'bcnet' or 'detectron2', got {to!r}")
    if precision not in ("fp32", "fp16"):
        raise ValueError(f"weights are written in 'fp32' or 'fp16', got {precision!r}")
    check_output(output)
    path = local_path(input)
    if os.path.exists(output) and os.path.samefile(path, output):
        raise ValueError(f"{input!r} would overwrite itself; give another output")
    content = read_checkpoint(path)
    conversion = to_bcnet(weights_of(content, input))
    if not conversion.state:
        raise ValueError(f"no tensor of {input!r} has a counterpart in the models here")
    state = conversion.state if to == names.BCNET else to_detectron2(conversion.state)
    if precision == "fp16":
        state = half_precision(state)
    copied = ("class_names", "config") if to == names.BCNET else ("class_names",)
    write_weights(state, output, extra={key: content[key] for key in copied if key in content})
    return conversion


def _add_batch_statistics(conversion: Conversion) -> None:
    for key in list(conversion.state):
        match = re.fullmatch(r"(.*\.(?:bn\d|downsample\.1))\.weight", key)
        if not match:
            continue
        weight = conversion.state[key]
        for leaf, value in (("running_mean", torch.zeros_like(weight)), ("running_var", torch.ones_like(weight))):
            if f"{match[1]}.{leaf}" not in conversion.state:
                conversion.state[f"{match[1]}.{leaf}"] = value
                conversion.sources[f"{match[1]}.{leaf}"] = ""


def _reorder_classes(state: dict[str, Tensor], num_classes: int | None) -> None:
    """From torchvision's outputs (background first, COCO's ids with gaps) to ours, in place."""
    for key in [key for key in state if re.search(r"\.(cls_score|bbox_pred|mask\.predictor|cls_logits)\.", key)]:
        if key.startswith("rpn."):
            continue
        tensor = state[key]
        per_class = 4 if ".bbox_pred." in key else 1
        outputs = len(tensor) // per_class
        classes = COCO_IDS if outputs == 91 and num_classes != 90 else list(range(1, outputs))
        if ".cls_score." in key:
            classes = [*classes, 0]
        state[key] = tensor.unflatten(0, (outputs, per_class))[classes].flatten(0, 1)


def _move_fcos_points(conversion: Conversion) -> None:
    bias = conversion.state.get("head.distances.bias")
    if bias is None:
        return
    conversion.state["head.distances.bias"] = bias + bias.new_tensor([0.5, 0.5, -0.5, -0.5])
    for level in range(5):
        conversion.state[f"head.scales.{level}"] = bias.new_ones(1)
        conversion.sources[f"head.scales.{level}"] = ""
