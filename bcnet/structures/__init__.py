"""Data structures: ground-truth targets, instance masks, detections, and the graph of occlusion relations."""

from bcnet.maps import unknown_layer
from bcnet.structures.detections import Detections
from bcnet.structures.instance_masks import InstanceMasks
from bcnet.structures.occlusion_graph import DepthOrder, Occlusion, OcclusionGraph
from bcnet.structures.source_image import SourceImage
from bcnet.structures.targets import Targets

__all__ = [
    "DepthOrder",
    "Detections",
    "InstanceMasks",
    "Occlusion",
    "OcclusionGraph",
    "SourceImage",
    "Targets",
    "unknown_layer",
]
