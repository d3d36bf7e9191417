"""FCOS (anchor-free detector): head, target assignment, losses and box decoding, in plain tensors."""

from bcnet.fcos.decode import decode_detections
from bcnet.fcos.head import FCOSHead, FCOSOutput
from bcnet.fcos.losses import fcos_losses
from bcnet.fcos.points import level_points
from bcnet.fcos.targets import FCOSTargets, assign_targets

__all__ = [
    "FCOSHead",
    "FCOSOutput",
    "FCOSTargets",
    "assign_targets",
    "decode_detections",
    "fcos_losses",
    "level_points",
]
