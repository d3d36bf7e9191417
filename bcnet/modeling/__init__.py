"""The detectors: backbone, RPN, RoI branches, and how a config builds them."""

from bcnet.modeling.build import build_mask_head, build_model, resolve_device
from bcnet.modeling.detector import Detector
from bcnet.modeling.faster_rcnn import FasterRCNN
from bcnet.modeling.fcos import FCOS
from bcnet.modeling.thresholds import Thresholds

__all__ = ["FCOS", "Detector", "FasterRCNN", "Thresholds", "build_mask_head", "build_model", "resolve_device"]
