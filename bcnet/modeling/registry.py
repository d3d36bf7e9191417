"""Registries of backbones, mask heads and detectors, and the interface of a backbone.

A registered class has a class method that reads its section of the config:

- a backbone `from_config(cfg)`,
- a mask head `from_config(cfg, in_channels)`, with the channels of the pooled features,
- a detector `from_config(cfg)`.

It may also have an adapter for the names of its tensors in checkpoints of other code:
`bcnet.modeling.checkpoint_adapter`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from bcnet.bilayer import MaskHead
from bcnet.registry import Registry

BACKBONE_REGISTRY = Registry("BACKBONE", key="MODEL.BACKBONE.NAME", kind="backbone")
MASK_HEAD_REGISTRY = Registry("MASK_HEAD", key="MODEL.ROI_MASK_HEAD.NAME", kind="mask head")
DETECTOR_REGISTRY = Registry("DETECTOR", key="MODEL.META_ARCHITECTURE", kind="detector")


@runtime_checkable
class Backbone(Protocol):
    """Interface of a backbone: an `nn.Module` with these attributes.

    Attributes:
        strides: stride in pixels of every level by its name, fine to coarse, each twice the one before:
            {"p2": 4, "p3": 8, ...}. The config's IN_FEATURES are these names.
        out_channels: C, which all levels share.
        size_divisibility: heights and widths of the input are padded to multiples of this many pixels.
    """

    strides: Mapping[str, int]
    out_channels: int
    size_divisibility: int

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """From normalised images, float [B, 3, H, W], to features by level name, float [B, C, H/stride, W/stride].

        A level's sides are rounded up where the stride does not divide them.
        """
        ...


def build_backbone(cfg) -> Backbone:
    """The backbone that MODEL.BACKBONE.NAME names.

    Raises:
        ValueError: no such backbone.
        TypeError: the registered class does not build a `Backbone`; names the missing attributes.
    """
    backbone: Backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME).from_config(cfg)
    lacking = [name for name in ("strides", "out_channels", "size_divisibility") if not hasattr(backbone, name)]
    if not isinstance(backbone, nn.Module) or lacking:
        raise TypeError(
            f"{cfg.MODEL.BACKBONE.NAME!r} is not a backbone: it must be an nn.Module with strides, out_channels and "
            f"size_divisibility, and is a {type(backbone).__name__} without {', '.join(lacking) or 'parameters'}"
        )
    return backbone


def level_strides(backbone: Backbone, levels: Sequence[str], key: str) -> list[int]:
    """The strides in pixels of the named levels of a backbone.

    Args:
        levels: their names.
        key: the config key that they come from.

    Raises:
        ValueError: a level that the backbone does not have.
    """
    absent = [name for name in levels if name not in backbone.strides]
    if absent:
        raise ValueError(
            f"{key} is {list(levels)}; {type(backbone).__name__} has the levels {', '.join(backbone.strides)} and no "
            f"{', '.join(absent)}"
        )
    return [backbone.strides[name] for name in levels]


def build_mask_head(cfg, in_channels: int) -> MaskHead:
    """The mask head that MODEL.ROI_MASK_HEAD.NAME names.

    Args:
        in_channels: channels of the pooled features.

    Raises:
        ValueError: no such head, or config values that it does not support.
    """
    return MASK_HEAD_REGISTRY.get(cfg.MODEL.ROI_MASK_HEAD.NAME).from_config(cfg, in_channels)
