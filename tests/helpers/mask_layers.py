"""Instance masks of tests, from full-image masks of the two layers."""

from __future__ import annotations

from torch import Tensor

from bcnet.structures import InstanceMasks


def two_layers(occludee: Tensor, occluder: Tensor) -> InstanceMasks:
    """Instance masks of two full-image layers, [G, H, W] each."""
    return InstanceMasks.from_full({"occludee": occludee, "occluder": occluder})
