"""What the readers of amodal formats share: a visible and an amodal mask become one annotation of COCO's kind."""

from __future__ import annotations

from collections import Counter

from bcnet.data.parsing import is_finite, mask_box, missing, without_short_polygons
from bcnet.data.records import ImageRecord


def amodal_annotation(
    annotation: dict,
    record: ImageRecord,
    counts: Counter,
    *,
    visible: object,
    amodal: object,
    bbox: object = None,
    amodal_bbox: object = None,
) -> dict | None:
    """An annotation of `bcnet.data.coco` with both masks and the boxes of both.

    - No usable amodal mask (absent, empty, polygons of fewer than 3 points, no pixel in the image): None, counted.
    - No usable visible mask: the object is hidden altogether, which is counted. It has an amodal mask alone,
      and a visible box of zero size.
    - A box that is absent, or starts left of or above the image, is replaced by that of the mask's pixels.

    Crowds get the visible mask alone.

    Args:
        annotation: gives ``id``, ``category_id``, ``iscrowd`` and ``ignore``.
        record: its image.
        counts: counts what is odd.
        visible, amodal: polygons or RLE; None where there is none.
        bbox, amodal_bbox: xywh boxes of the file; None where it has none, or where it is not known whose
            they are.

    Raises:
        ValueError: a mask is neither polygons nor an RLE of the image's size, or its content is malformed.
    """
    fault = missing(annotation, ("category_id",))
    if fault is not None:
        raise ValueError(fault)
    common = {key: annotation.get(key) for key in ("id", "category_id", "iscrowd", "ignore")}
    usable_amodal, amodal_bbox = _mask_and_box("amodal mask", amodal, amodal_bbox, record, counts)
    if usable_amodal is None:
        counts["annotations without an amodal mask in the image, dropped"] += 1
        return None
    if visible is amodal and bbox is None:  # nothing is hidden
        usable_visible, bbox = usable_amodal, amodal_bbox
    else:
        usable_visible, bbox = _mask_and_box("visible mask", visible, bbox, record, counts)
    if usable_visible is None:
        counts["objects without a visible pixel, hidden altogether"] += 1
        bbox = [*amodal_bbox[:2], 0, 0]
    if common["iscrowd"] or common["ignore"]:
        return {**common, "bbox": bbox, "segmentation": usable_visible}
    return {
        **common,
        "bbox": bbox,
        "segmentation": usable_visible,
        "amodal_segmentation": usable_amodal,
        "amodal_bbox": amodal_bbox,
    }


def _mask_and_box(
    key: str, segmentation: object, box: object, record: ImageRecord, counts: Counter
) -> tuple[list | dict | None, list[float]]:
    """A mask with its box, or None and an empty box where it has no pixels."""
    nothing = None, [0, 0, 0, 0]
    if segmentation is None or segmentation == []:
        return nothing
    segmentation = without_short_polygons(key, segmentation, record, counts)
    if segmentation == []:
        return nothing
    if box is not None and _is_box_in_image(box, record):
        return segmentation, box
    pixels_box = mask_box(segmentation, record)
    if pixels_box[2] == 0 or pixels_box[3] == 0:
        return nothing
    if box is not None:
        counts[f"boxes malformed or starting outside the image, replaced by the box of the {key}"] += 1
    return segmentation, pixels_box


def _is_box_in_image(box: object, record: ImageRecord) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not all(is_finite(value) for value in box):
        return False
    x, y, width, height = box
    return 0 <= x < record.width and 0 <= y < record.height and width > 0 and height > 0


def as_polygons(segmentation: object) -> object:
    """One flat polygon as the list of polygons that COCO's format has; anything else as it is."""
    if isinstance(segmentation, list) and segmentation and not isinstance(segmentation[0], (list, dict)):
        return [segmentation]
    return segmentation
