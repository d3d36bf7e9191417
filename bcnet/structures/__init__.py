"""Data structures between the parts: ground truth in, detections out."""

from bcnet.maps import unknown_layer
from bcnet.structures.detections import Detections
from bcnet.structures.instance_masks import InstanceMasks
from bcnet.structures.occlusion_graph import DepthOrder, Occlusion, OcclusionGraph
from bcnet.structures.targets import Targets

__all__ = [
    "DepthOrder",
    "Detections",
    "InstanceMasks",
    "Occlusion",
    "OcclusionGraph",
    "Targets",
    "unknown_layer",
]
