"""Sample COCO annotations for the tests of the data package."""

from __future__ import annotations


def square(x, y, side):
    """A square polygon."""
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(annotation_id, image, box, **changes):
    """A well-formed annotation whose mask is its box; a change to None removes the key."""
    x, y, w, h = box
    values = {
        "id": annotation_id,
        "image_id": image,
        "category_id": 3,
        "bbox": list(box),
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        **changes,
    }
    return {key: value for key, value in values.items() if value is not None}
