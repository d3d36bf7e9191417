"""What flows between the parts: ground truth in, detections out."""

from bcnet.ops.paste import paste_maps
from bcnet.structures.detections import Detections
from bcnet.structures.occlusion_graph import DepthOrder, Occlusion, OcclusionGraph
from bcnet.structures.targets import InstanceMasks, Targets

__all__ = [
    "DepthOrder",
    "Detections",
    "InstanceMasks",
    "Occlusion",
    "OcclusionGraph",
    "Targets",
    "paste_maps",
]
