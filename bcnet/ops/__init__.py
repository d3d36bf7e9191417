"""Operators that several parts share."""

from bcnet.ops.roi_align import axis_weights, pyramid_roi_align

__all__ = ["axis_weights", "pyramid_roi_align"]
