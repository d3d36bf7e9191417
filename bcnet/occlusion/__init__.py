"""Who hides whom: in annotations by the occluder rule on RLE masks, among detections by what both layers saw."""

from bcnet.occlusion.relations import occluder_confidence, with_relations
from bcnet.occlusion.rule import occluder_rles

__all__ = ["occluder_confidence", "occluder_rles", "with_relations"]
