"""What weights expect of a model beyond names and shapes: channel order, pixel scale, where a ResNet strides."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from bcnet.checkpoint import names
from bcnet.checkpoint.convert import Conversion


class Settings(NamedTuple):
    """What a ResNet was trained with, by the config's keys.

    Attributes:
        stride_in_1x1: MODEL.RESNETS.STRIDE_IN_1X1.
        format: INPUT.FORMAT.
        unit_std: whether MODEL.PIXEL_STD is 1, rather than that of ImageNet's images.
    """

    stride_in_1x1: bool
    format: str
    unit_std: bool


MSRA_RESNET = Settings(stride_in_1x1=True, format="BGR", unit_std=True)
FAIR_RESNEXT = Settings(stride_in_1x1=False, format="BGR", unit_std=False)
TORCHVISION_RESNET = Settings(stride_in_1x1=False, format="RGB", unit_std=False)


def expected_settings(conversion: Conversion, author: str) -> Settings | None:
    """What weights were trained with, where their origin decides it; None where it does not.

    Args:
        author: the file's "__author__", by which detectron2's zoo marks its files.
    """
    dialect = conversion.dialect
    if dialect in (names.TORCHVISION, names.TORCHVISION_BACKBONE) or author == "torchvision":
        return TORCHVISION_RESNET
    if dialect in (names.CAFFE2, names.PUBLISHED) or author == "Detectron2 Model Zoo":
        weight = conversion.state.get("backbone.resnet.layer1.0.conv2.weight")
        grouped = weight is not None and weight.shape[1] < weight.shape[0]
        return FAIR_RESNEXT if grouped else MSRA_RESNET
    return None


def settings_warnings(model: nn.Module, conversion: Conversion, author: str) -> list[str]:
    """One sentence per setting of the model that contradicts what the weights were trained with."""
    expected = expected_settings(conversion, author)
    if expected is None or not any(key.startswith("backbone.resnet.") for key in conversion.state):
        return []
    warnings = []
    stride_in_1x1 = _stride_in_1x1(model)
    if stride_in_1x1 is not None and stride_in_1x1 != expected.stride_in_1x1:
        warnings.append(
            f"these weights stride in {'a first 1x1' if expected.stride_in_1x1 else 'the 3x3'} convolution of a "
            f"block: set MODEL.RESNETS.STRIDE_IN_1X1 to {expected.stride_in_1x1}"
        )
    mean, std = getattr(model, "pixel_mean", None), getattr(model, "pixel_std", None)
    if isinstance(mean, torch.Tensor) and mean.numel() == 3:
        first, _, last = mean.flatten().tolist()
        if first != last and ("RGB" if first > last else "BGR") != expected.format:
            order = [123.675, 116.280, 103.530] if expected.format == "RGB" else [103.530, 116.280, 123.675]
            warnings.append(
                f"these weights take {expected.format} images and MODEL.PIXEL_MEAN is in the other order: set "
                f"INPUT.FORMAT to {expected.format!r} and MODEL.PIXEL_MEAN to {order}"
            )
    if isinstance(std, torch.Tensor) and bool((std == 1).all()) != expected.unit_std:
        scale = [57.375, 57.120, 58.395] if expected.format == "BGR" else [58.395, 57.120, 57.375]
        scale = [1.0, 1.0, 1.0] if expected.unit_std else scale
        warnings.append(f"these weights expect another pixel scale: set MODEL.PIXEL_STD to {scale}")
    if conversion.dialect == names.CAFFE2 and "" in conversion.sources.values() and _has_live_batch_norm(model):
        warnings.append(
            "the statistics of these weights' BatchNorm are merged into its scale and shift, so they belong into a "
            "frozen one: set MODEL.RESNETS.NORM to 'FrozenBN'"
        )
    return warnings


def _stride_in_1x1(model: nn.Module) -> bool | None:
    """Where the model's bottlenecks stride; None without bottlenecks."""
    try:
        block = model.backbone.resnet.layer2[0]
        return tuple(block.conv1.stride) != (1, 1) if hasattr(block, "conv3") else None
    except AttributeError:
        return None


def _has_live_batch_norm(model: nn.Module) -> bool:
    resnet = getattr(getattr(model, "backbone", None), "resnet", nn.Identity())
    return any(isinstance(module, nn.BatchNorm2d) for module in resnet.modules())
