"""Shares of masks: hidden share of an object, share covered by its occluder, occluder's share of the pixels in a box.

Masks are compressed RLEs of one image.
"""

from __future__ import annotations

from pycocotools import mask as coco_mask

from bcnet.ops.rle import RLE


def hidden_share(amodal: RLE, visible: RLE) -> float:
    """1 - area(amodal and visible) / area(amodal), 0..1: how much of an object is hidden; 0 of an empty amodal mask."""
    return 1 - covered_share(amodal, visible) if coco_mask.area(amodal) else 0.0


def covered_share(mask: RLE, occluder: RLE) -> float:
    """area(mask and occluder) / area(mask), 0..1: the share of the annotated mask that lies under the occluder.

    The published code prints it as its intersect rate. Of an amodal mask this is the hidden share proper.
    Masks of visible parts overlap only where the annotator drew around what is in front, as COCO's often do.
    An empty mask counts as 0.
    """
    area = int(coco_mask.area(mask))
    return int(coco_mask.area(coco_mask.merge([mask, occluder], intersect=True))) / area if area else 0.0


def occluder_share(mask: RLE, occluder: RLE | None) -> float:
    """area(occluder) / (area(occluder) + area(mask)), 0..1: the neighbours' share of the annotated pixels in a box.

    Visible masks say neither which of the two is in front nor how large the hidden part is, so for COCO this
    measures how crowded an instance is. Without an occluder, or with an empty one, it is 0.
    """
    covered = 0 if occluder is None else int(coco_mask.area(occluder))
    return covered / (covered + int(coco_mask.area(mask))) if covered else 0.0
