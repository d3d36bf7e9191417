"""Data structures: ground-truth targets, instance masks, detections, and the graph of occlusion relations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcnet.lazy_import import lazy_attributes
from bcnet.maps import unknown_layer
from bcnet.structures.occlusion_graph import DepthOrder, Occlusion, OcclusionGraph
from bcnet.structures.source_image import SourceImage

if TYPE_CHECKING:
    from bcnet.structures.detections import Detections
    from bcnet.structures.instance_masks import InstanceMasks
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

# What needs torch; the graph of relations does not.
__getattr__ = lazy_attributes(
    __name__, {"Detections": "detections", "InstanceMasks": "instance_masks", "Targets": "targets"}
)
