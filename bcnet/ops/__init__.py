"""Shared operators: RoIAlign on a pyramid, mask pasting, run-length encoding, synchronized BatchNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcnet.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from bcnet.ops.roi_align import axis_weights, pyramid_roi_align

__all__ = ["axis_weights", "pyramid_roi_align"]

__getattr__ = lazy_attributes(__name__, dict.fromkeys(__all__, "roi_align"))
