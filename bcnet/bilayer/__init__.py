"""The method: layers, heads, targets and losses. Tensors in, tensors out."""

from bcnet.bilayer.head import BilayerMaskHead, MaskLogits, PlainMaskHead
from bcnet.bilayer.losses import MaskLossWeights, mask_losses, occluder_rois
from bcnet.bilayer.targets import MaskTargets, crop_layers, mask_boundary, mask_targets

__all__ = [
    "BilayerMaskHead",
    "MaskLogits",
    "MaskLossWeights",
    "MaskTargets",
    "PlainMaskHead",
    "crop_layers",
    "mask_boundary",
    "mask_losses",
    "mask_targets",
    "occluder_rois",
]
