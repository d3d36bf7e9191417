"""The registered mask heads: their config sections, and the mask branch around the head that the config names."""

from __future__ import annotations

from collections.abc import Sequence

from bcnet import bilayer
from bcnet.maps import PUBLISHED_MAPS
from bcnet.modeling.mask_branch import MaskBranch
from bcnet.modeling.pooler import RoIPooler
from bcnet.modeling.registry import MASK_HEAD_REGISTRY, build_mask_head


def num_mask_classes(cfg) -> int:
    """Mask classes of the head: 1 for class-agnostic masks."""
    return 1 if cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES


def loss_weights(cfg) -> dict[str, float]:
    """MODEL.BILAYER.LOSS_WEIGHT by map name; a map of another package has the weight of its record."""
    return {spec.name: cfg.MODEL.BILAYER.LOSS_WEIGHT[spec.name.upper()] for spec in PUBLISHED_MAPS}


def bilayer_keywords(cfg, in_channels: int) -> dict:
    """Keywords of `bcnet.bilayer.BilayerMaskHead` beside its channels, from MODEL.ROI_MASK_HEAD and MODEL.BILAYER.

    Raises:
        ValueError: CONV_DIM other than the pooled features' channels.
    """
    mask, section = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.BILAYER
    if mask.CONV_DIM != in_channels:
        raise ValueError(
            f"the bilayer head adds its layers to the pooled features: MODEL.ROI_MASK_HEAD.CONV_DIM must be "
            f"{in_channels} like the backbone's channels (MODEL.FPN.OUT_CHANNELS), got {mask.CONV_DIM}"
        )
    return {
        "num_conv": mask.NUM_CONV,
        "num_mask_classes": num_mask_classes(cfg),
        "use_gcn": section.GCN,
        "use_boundary": section.BOUNDARY,
        "gcn_norm": section.GCN_NORM,
        "freeze_gcn_norm": section.FREEZE_GCN_NORM,
        "loss_weights": loss_weights(cfg),
    }


@MASK_HEAD_REGISTRY.register()
class BilayerMaskHead(bilayer.BilayerMaskHead):
    """`bcnet.bilayer.BilayerMaskHead` from the config."""

    @classmethod
    def from_config(cls, cfg, in_channels: int) -> BilayerMaskHead:
        """Reads MODEL.ROI_MASK_HEAD and MODEL.BILAYER, see `bilayer_keywords`."""
        return cls(in_channels, **bilayer_keywords(cfg, in_channels))


@MASK_HEAD_REGISTRY.register(name="MaskRCNNConvUpsampleHead")
class PlainMaskHead(bilayer.PlainMaskHead):
    """`bcnet.bilayer.PlainMaskHead` from the config."""

    @classmethod
    def from_config(cls, cfg, in_channels: int) -> PlainMaskHead:
        """Reads MODEL.ROI_MASK_HEAD.

        Raises:
            ValueError: no convolution (NUM_CONV 0) and CONV_DIM other than the pooled features' channels.
        """
        mask = cfg.MODEL.ROI_MASK_HEAD
        if mask.NUM_CONV == 0 and mask.CONV_DIM != in_channels:
            raise ValueError(
                f"MODEL.ROI_MASK_HEAD.NUM_CONV is 0: its CONV_DIM must be {in_channels} like the pooled features, got "
                f"{mask.CONV_DIM}"
            )
        return cls(
            in_channels,
            mask.CONV_DIM,
            num_conv=mask.NUM_CONV,
            num_mask_classes=num_mask_classes(cfg),
            loss_weights=loss_weights(cfg),
        )


def build_mask_branch(cfg, in_channels: int, strides: Sequence[int]) -> MaskBranch | None:
    """RoI pooling and the head that MODEL.ROI_MASK_HEAD names; None unless MODEL.MASK_ON.

    Args:
        in_channels: channels of the levels that masks are pooled from.
        strides: of these levels in pixels, fine to coarse.
    """
    if not cfg.MODEL.MASK_ON:
        return None
    mask = cfg.MODEL.ROI_MASK_HEAD
    pooler = RoIPooler(mask.POOLER_RESOLUTION, strides, mask.POOLER_SAMPLING_RATIO)
    head = build_mask_head(cfg, in_channels)
    return MaskBranch(pooler, head, negative_ratio=cfg.MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO)
