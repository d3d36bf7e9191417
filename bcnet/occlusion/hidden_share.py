"""Hidden share of an object: how much of its amodal mask is not visible."""

from __future__ import annotations

from pycocotools import mask as coco_mask


def amodal_hidden_share(visible: dict, amodal: dict) -> float:
    """1 - area(visible and amodal) / area(amodal), 0..1; 0 for an empty amodal mask.

    Args:
        visible, amodal: compressed RLEs of one image.
    """
    area = float(coco_mask.area(amodal))
    seen = float(coco_mask.area(coco_mask.merge([amodal, visible], intersect=True)))
    return 1 - seen / area if area else 0.0
