"""Mask heads, BCNet's bilayer head among them: layers, heads, mask targets and losses, in plain tensors."""

from bcnet.bilayer.head import BilayerMaskHead, MaskHead, PlainMaskHead, select_class
from bcnet.bilayer.losses import balanced_rois, mask_losses
from bcnet.bilayer.side_branch_head import SideBranchMaskHead
from bcnet.bilayer.targets import MapTarget, crop_layers, join_crops, map_targets, mask_boundary

__all__ = [
    "BilayerMaskHead",
    "MapTarget",
    "MaskHead",
    "PlainMaskHead",
    "SideBranchMaskHead",
    "balanced_rois",
    "crop_layers",
    "join_crops",
    "map_targets",
    "mask_boundary",
    "mask_losses",
    "select_class",
]
