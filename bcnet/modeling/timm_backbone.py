"""timm backbones: any image classifier of timm with an FPN, and plain ViTs with a simple feature pyramid.

Letters: B images, H x W padded image, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from bcnet.modeling.feature_pyramid import FeaturePyramidNetwork
from bcnet.modeling.registry import BACKBONE_REGISTRY
from bcnet.modeling.simple_pyramid import SimpleFeaturePyramid
from bcnet.modeling.timm_checkpoints import TimmAdapter
from bcnet.modeling.timm_trunk import (
    STRIDES,
    Stage,
    convert_batch_norm,
    create_trunk,
    freeze_stages,
    pixel_statistics,
    stage_features,
)

_STAGES = ("res2", "res3", "res4", "res5")


@BACKBONE_REGISTRY.register(name="build_timm_fpn_backbone")
class TimmFPN(nn.Module):
    """Feature pyramid on a classifier of timm that ends with P6, a subsampled P5: {"p2": [B, C, H/4, W/4], ...}.

    A plain ViT has features of one stride, from which a simple feature pyramid makes all levels. Where its patches are
    not a power of two (14 pixels in DINOv2), images are resized so that a patch covers the nearest power of two (16).
    """

    size_divisibility = 32
    last_level = 6
    checkpoint_adapter = TimmAdapter()

    def __init__(
        self, trunk: nn.Module, stages: Sequence[Stage], *, in_features: Sequence[str], out_channels: int
    ) -> None:
        """
        Args:
            trunk, stages: of `create_trunk`.
            in_features: ("res2", "res3", "res4", "res5") or ("res3", "res4", "res5"): features of strides 4 to 32.
            out_channels: C, of every level.

        Raises:
            ValueError: other input features.
        """
        super().__init__()
        if list(in_features) not in (list(_STAGES), list(_STAGES[1:])):
            raise ValueError(f"MODEL.FPN.IN_FEATURES must be res2..res5 or res3..res5, got {list(in_features)}")
        first = int(in_features[0].removeprefix("res"))
        self.trunk = trunk
        self.out_channels = out_channels
        self.strides: Mapping[str, int] = {f"p{level}": 2**level for level in range(first, self.last_level + 1)}
        self.scale = 1.0  # of the images, for patches whose side is not a power of two
        if stages[0].stride == STRIDES[0]:
            self.stages = list(stages[first - 2 :])
            channels = [stage.channels for stage in self.stages]
            self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=self.extra_levels(out_channels))
        else:
            self.stages = list(stages[-1:])
            patch = self.stages[0].stride
            base_level = round(math.log2(patch))
            self.scale = patch / 2**base_level
            self.pyramid = SimpleFeaturePyramid(
                self.stages[0].channels, base_level=base_level, levels=range(first, 6), out_channels=out_channels
            )
            self.extra = self.extra_levels(out_channels)

    @classmethod
    def from_config(cls, cfg) -> TimmFPN:
        """Reads MODEL.TIMM, MODEL.FPN, MODEL.BACKBONE.FREEZE_AT and, to check them, the keys of `derived_config`.

        Raises:
            ImportError: timm is not installed.
            ValueError: no such model, one that a pyramid cannot be built on, or images of other statistics than timm's
                data config has.
        """
        for key, value in cls.derived_config(cfg).items():
            actual = cfg.MODEL[key.removeprefix("MODEL.")] if key.startswith("MODEL.") else cfg.INPUT.FORMAT
            if actual != value:
                raise ValueError(
                    f"{key} is {actual}; timm's data config of {cfg.MODEL.TIMM.NAME} asks for {value} "
                    "(MODEL.TIMM.DATA_CONFIG False keeps your value)"
                )
        section = cfg.MODEL.TIMM
        trunk, stages = create_trunk(section.NAME, drop_path=section.DROP_PATH)
        freeze_stages(trunk, stages, cfg.MODEL.BACKBONE.FREEZE_AT)
        trunk = convert_batch_norm(trunk, section.NORM)
        return cls(trunk, stages, in_features=cfg.MODEL.FPN.IN_FEATURES, out_channels=cfg.MODEL.FPN.OUT_CHANNELS)

    @classmethod
    def derived_config(cls, cfg) -> dict[str, object]:
        """Pixel statistics and channel order of timm's data config; nothing if MODEL.TIMM.DATA_CONFIG is off."""
        if not cfg.MODEL.TIMM.DATA_CONFIG:
            return {}
        mean, std = pixel_statistics(cfg.MODEL.TIMM.NAME)
        return {"MODEL.PIXEL_MEAN": mean, "MODEL.PIXEL_STD": std, "INPUT.FORMAT": "RGB"}

    @staticmethod
    def extra_levels(channels: int) -> ExtraFPNBlock:
        """The levels beyond P5."""
        return LastLevelMaxPool()

    def compile(self, *args, **options) -> None:
        """As `nn.Module.compile`, but for TensorFlow's padding (``tf_`` models) always with static shapes.

        That padding computes with the image's size, which takes minutes to trace for a symbolic one; each size of
        padded images is compiled anew.
        """
        if any(type(module).__name__ == "Conv2dSame" for module in self.trunk.modules()):
            options["dynamic"] = False
        super().compile(*args, **options)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """From normalised images, float [B, 3, H, W] with H and W divisible by 32."""
        if self.scale != 1:
            size = [round(side * self.scale) for side in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        features = stage_features(self.trunk, images, self.stages)
        if hasattr(self, "fpn"):
            levels = list(self.fpn({f"p{i}": feature for i, feature in enumerate(features)}).values())
        else:
            results = list(self.pyramid(features[0]).values())
            levels, _ = self.extra(results, features, [f"p{i}" for i in range(len(results))])
        return dict(zip(self.strides, levels, strict=True))


@BACKBONE_REGISTRY.register(name="build_bcnet_fcos_timm_fpn_backbone")
class TimmFPNWithP7(TimmFPN):
    """Feature pyramid on a classifier of timm that ends with P6 and P7, stride-2 convolutions of P5 (FCOS)."""

    last_level = 7

    @staticmethod
    def extra_levels(channels: int) -> ExtraFPNBlock:
        return LastLevelP6P7(channels, channels)
