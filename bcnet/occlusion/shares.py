"""Area ratios of masks: hidden share of an object, share covered by its occluder, occluder's share of pixels in a box.

Masks are compressed RLEs of one image.
"""

from __future__ import annotations

from pycocotools import mask as coco_mask

from bcnet.ops.rle import RLE


def hidden_share(amodal: RLE, visible: RLE) -> float:
    """1 - area(amodal and visible) / area(amodal), 0..1: hidden fraction of an object; 0 for an empty amodal mask."""
    return 1 - covered_share(amodal, visible) if coco_mask.area(amodal) else 0.0


def covered_share(mask: RLE, occluder: RLE) -> float:
    """area(mask and occluder) / area(mask), 0..1: the share of the annotated mask that lies under the occluder.

    The published code prints it as its intersect rate. For an amodal mask it is the hidden fraction. Visible masks
    overlap only if the annotator's outline includes parts of the occluder, as COCO's often do. 0 for an empty mask.
    """
    area = int(coco_mask.area(mask))
    return int(coco_mask.area(coco_mask.merge([mask, occluder], intersect=True))) / area if area else 0.0


def occluder_share(mask: RLE, occluder: RLE | None) -> float:
    """area(occluder) / (area(occluder) + area(mask)), 0..1: the neighbours' share of the annotated pixels in a box.

    Visible masks tell neither which of the two is in front nor how large the hidden part is, so for COCO this measures
    how crowded an instance is. 0 without an occluder or with an empty one.
    """
    covered = 0 if occluder is None else int(coco_mask.area(occluder))
    return covered / (covered + int(coco_mask.area(mask))) if covered else 0.0
