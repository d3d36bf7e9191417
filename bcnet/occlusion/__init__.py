"""Who hides whom in annotations: the occluder rule on RLE masks."""

from bcnet.occlusion.rule import occluder_rles

__all__ = ["occluder_rles"]
