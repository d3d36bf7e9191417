"""Backbones for detectron2: ResNet-FPN with P6 and P7 for FCOS, and the engine's timm backbones."""

from __future__ import annotations

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_resnet_backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7

from bcnet.detectron2.keys import require_bcnet_keys
from bcnet.modeling.timm_backbone import TimmFPN, TimmFPNWithP7


@BACKBONE_REGISTRY.register()
def build_bcnet_fcos_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """ResNet-FPN with P6 and P7 from P5 (detectron2's `build_retinanet_resnet_fpn_backbone` takes res5)."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return FPN(
        bottom_up=build_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelP6P7(channels, channels, in_feature="p5"),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class TimmBackbone(TimmFPN, Backbone):
    """The engine's `TimmFPN` as a backbone of detectron2, with the same names of tensors."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=self.out_channels, stride=stride) for name, stride in self.strides.items()}


class TimmBackboneWithP7(TimmFPNWithP7, TimmBackbone):
    """The engine's `TimmFPNWithP7` as a backbone of detectron2 (FCOS)."""


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg, input_shape: ShapeSpec) -> TimmBackbone:
    """A pyramid that ends with P6 on the classifier MODEL.TIMM.NAME of timm; see `TimmFPN.from_config`."""
    return _timm_backbone(TimmBackbone, cfg)


@BACKBONE_REGISTRY.register()
def build_bcnet_fcos_timm_fpn_backbone(cfg, input_shape: ShapeSpec) -> TimmBackbone:
    """A pyramid that ends with P6 and P7 on the classifier MODEL.TIMM.NAME of timm, for FCOS."""
    return _timm_backbone(TimmBackboneWithP7, cfg)


def _timm_backbone(kind: type[TimmBackbone], cfg) -> TimmBackbone:
    require_bcnet_keys(cfg)
    backbone = kind.from_config(cfg)
    assert isinstance(backbone, kind)
    return backbone
