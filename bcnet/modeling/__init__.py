"""Detectors (Faster R-CNN, FCOS): backbone, RPN, box and mask branches, registries, and building from a config."""

from bcnet.modeling.backbone import ResNetFPN
from bcnet.modeling.box_prompted import BoxPrompted
from bcnet.modeling.build import build_model, resolve_device
from bcnet.modeling.detector import Detector
from bcnet.modeling.faster_rcnn import FasterRCNN
from bcnet.modeling.fcos import FCOS
from bcnet.modeling.registry import (
    BACKBONE_REGISTRY,
    DETECTOR_REGISTRY,
    MASK_HEAD_REGISTRY,
    Backbone,
    build_backbone,
    build_mask_head,
)
from bcnet.modeling.thresholds import Thresholds
from bcnet.modeling.timm_backbone import TimmFPN

__all__ = [
    "BACKBONE_REGISTRY",
    "DETECTOR_REGISTRY",
    "FCOS",
    "MASK_HEAD_REGISTRY",
    "Backbone",
    "BoxPrompted",
    "Detector",
    "FasterRCNN",
    "ResNetFPN",
    "Thresholds",
    "TimmFPN",
    "build_backbone",
    "build_mask_head",
    "build_model",
    "resolve_device",
]
