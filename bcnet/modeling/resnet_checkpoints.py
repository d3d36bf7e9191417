"""Checkpoint adapter of ResNet-FPN: names in other code, settings of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from bcnet.modeling.checkpoint_adapter import (
    CAFFE2,
    DETECTRON2,
    DETECTRON2_BACKBONE,
    PUBLISHED,
    TORCHVISION,
    TORCHVISION_BACKBONE,
    CheckpointAdapter,
    Rule,
)
from bcnet.modeling.pyramid_checkpoints import first_stage, renumber_levels

if TYPE_CHECKING:
    from bcnet.checkpoint.convert import Conversion
    from bcnet.checkpoint.report import LoadReport

_RESNET = "backbone.resnet."
_OTHER_RESNETS = ("backbone.bottom_up.", "backbone.body.", "res", "layer")  # the same in other dialects


class ResNetFPNAdapter(CheckpointAdapter):
    """detectron2's, torchvision's and Caffe2's ResNets, with or without FPN."""

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        if dialect in (DETECTRON2, PUBLISHED):
            return _detectron2_resnet("backbone.bottom_up.") + _detectron2_fpn(first_stage(keys) or 2)
        rules = {
            TORCHVISION: _torchvision,
            DETECTRON2_BACKBONE: lambda: _detectron2_resnet(""),
            TORCHVISION_BACKBONE: lambda: [(f"{_RESNET}**", "**")],
            CAFFE2: _caffe2,
        }
        return rules[dialect]() if dialect in rules else ()

    def adapt(self, conversion: Conversion, own: Mapping[str, Tensor]) -> None:
        renumber_levels(conversion, own)

    def fault(self, report: LoadReport) -> str | None:
        """Rejects a ResNet of which only some tensors fit: it is another architecture."""
        if not any(key.startswith(_RESNET) for key in report.loaded):
            return None
        skipped = [entry.key for entry in report.skipped if not entry.harmless]
        lacking = [key for key in (*report.missing, *report.reshaped) if key.startswith(_RESNET)]
        if not lacking and not any(key.startswith((_RESNET, *_OTHER_RESNETS)) for key in skipped):
            return None
        return (
            f"the ResNet of {report.source!r} is another one than the model's (MODEL.RESNETS); what does not fit would "
            "stay at its random initialisation"
        )

    def warnings(self, model: nn.Module, conversion: Conversion, author: str) -> list[str]:
        return settings_warnings(model, conversion, author)


# -- Names -------------------------------------------------------------------------------------------------


def _detectron2_resnet(prefix: str) -> list[Rule]:
    ours, block = "backbone.resnet.", "layer{s}.{b}."
    theirs, their_block = prefix, "res{s+1}.{b}."
    return [
        (f"{ours}conv1.*", f"{theirs}stem.conv1.*"),
        (f"{ours}bn1.*", f"{theirs}stem.conv1.norm.*"),
        (f"{ours}{block}conv{{c}}.*", f"{theirs}{their_block}conv{{c}}.*"),
        (f"{ours}{block}bn{{c}}.*", f"{theirs}{their_block}conv{{c}}.norm.*"),
        (f"{ours}{block}downsample.0.*", f"{theirs}{their_block}shortcut.*"),
        (f"{ours}{block}downsample.1.*", f"{theirs}{their_block}shortcut.norm.*"),
    ]


def _detectron2_fpn(first_stage: int) -> list[Rule]:
    # torchvision counts the levels from 0, detectron2 names them by their stage.
    return [
        ("backbone.fpn.inner_blocks.{l}.0.*", f"backbone.fpn_lateral{{l+{first_stage}}}.*"),
        ("backbone.fpn.layer_blocks.{l}.0.*", f"backbone.fpn_output{{l+{first_stage}}}.*"),
        ("backbone.fpn.extra_blocks.p{l}.*", "backbone.top_block.p{l}.*"),
    ]


def _torchvision() -> list[Rule]:
    """Where two rules share our side, the second is the name in older files."""
    return [
        ("backbone.resnet.**", "backbone.body.**"),
        ("backbone.fpn.inner_blocks.{l}.0.*", "backbone.fpn.inner_blocks.{l}.0.*"),
        ("backbone.fpn.inner_blocks.{l}.0.*", "backbone.fpn.inner_blocks.{l}.*"),
        ("backbone.fpn.layer_blocks.{l}.0.*", "backbone.fpn.layer_blocks.{l}.0.*"),
        ("backbone.fpn.layer_blocks.{l}.0.*", "backbone.fpn.layer_blocks.{l}.*"),
        ("backbone.fpn.extra_blocks.p{l}.*", "backbone.fpn.extra_blocks.p{l}.*"),
    ]


def _caffe2() -> list[Rule]:
    """Caffe2's ResNets; a BatchNorm has four tensors, or two (s, b) where its statistics are merged in."""
    convs = [("conv1", "conv1", "bn1", "res_conv1_bn")]
    for branch, conv, norm in (
        ("branch1", "downsample.0", "downsample.1"),
        ("branch2a", "conv1", "bn1"),
        ("branch2b", "conv2", "bn2"),
        ("branch2c", "conv3", "bn3"),
    ):
        theirs = f"res{{s+1}}_{{b}}_{branch}"
        convs.append((f"layer{{s}}.{{b}}.{conv}", theirs, f"layer{{s}}.{{b}}.{norm}", f"{theirs}_bn"))
    leaves = (
        ("weight", ("gamma", "s")),
        ("bias", ("beta", "b")),
        ("running_mean", ("running_mean", "rm")),
        ("running_var", ("running_var", "riv")),
    )
    rules = []
    for conv, their_conv, norm, their_norm in convs:
        rules.append((f"{_RESNET}{conv}.weight", f"{their_conv}_w"))
        for leaf, their_leaves in leaves:
            rules += [(f"{_RESNET}{norm}.{leaf}", f"{their_norm}_{their_leaf}") for their_leaf in their_leaves]
    return rules


# -- Settings ----------------------------------------------------------------------------------------------


class Settings(NamedTuple):
    """Settings of a ResNet's training, as config values.

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
    """The settings that weights were trained with, if their origin determines them; otherwise None.

    Args:
        author: the file's "__author__", by which detectron2's zoo marks its files.
    """
    dialect = conversion.dialect
    if dialect in (TORCHVISION, TORCHVISION_BACKBONE) or author == "torchvision":
        return TORCHVISION_RESNET
    if dialect in (CAFFE2, PUBLISHED) or author == "Detectron2 Model Zoo":
        weight = conversion.state.get("backbone.resnet.layer1.0.conv2.weight")
        grouped = weight is not None and weight.shape[1] < weight.shape[0]
        return FAIR_RESNEXT if grouped else MSRA_RESNET
    return None


def settings_warnings(model: nn.Module, conversion: Conversion, author: str) -> list[str]:
    """One warning per setting of the model that differs from the training of the weights."""
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
    if conversion.dialect == CAFFE2 and "" in conversion.sources.values() and _has_live_batch_norm(model):
        warnings.append(
            "the statistics of these weights' BatchNorm are merged into its scale and shift, which needs a frozen "
            "BatchNorm: set MODEL.RESNETS.NORM to 'FrozenBN'"
        )
    return warnings


def _stride_in_1x1(model: nn.Module) -> bool | None:
    """Whether the model's bottlenecks have their stride in the first 1x1; None without bottlenecks."""
    resnet = _resnet(model)
    block = resnet.layer2[0] if isinstance(resnet, ResNet) else None
    return tuple(block.conv1.stride) != (1, 1) if isinstance(block, Bottleneck) else None


def _has_live_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in _resnet(model).modules())


def _resnet(model: nn.Module) -> nn.Module:
    """The model's ResNet, or an empty module."""
    return getattr(getattr(model, "backbone", None), "resnet", nn.Identity())
