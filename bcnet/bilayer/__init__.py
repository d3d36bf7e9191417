"""The method: layers, mask heads, targets and losses. Tensors in, tensors out."""

from bcnet.bilayer.head import BilayerMaskHead, MaskHead, PlainMaskHead, select_class
from bcnet.bilayer.losses import balanced_rois, mask_losses
from bcnet.bilayer.targets import MapTarget, crop_layers, join_crops, map_targets, mask_boundary

__all__ = [
    "BilayerMaskHead",
    "MapTarget",
    "MaskHead",
    "PlainMaskHead",
    "balanced_rois",
    "crop_layers",
    "join_crops",
    "map_targets",
    "mask_boundary",
    "mask_losses",
    "select_class",
]
