"""Helpers of the amodal readers: convert a visible and an amodal mask into one COCO annotation."""

from __future__ import annotations

from typing import Any

from bcnet.data.coco_json import annotation_label, is_finite, mask_box, read_flag, read_mask, short
from bcnet.data.findings import Findings
from bcnet.data.records import ImageRecord


def amodal_annotation(
    annotation: dict,
    record: ImageRecord,
    findings: Findings,
    *,
    visible: object,
    amodal: object,
    bbox: Any = None,
    amodal_bbox: Any = None,
) -> dict | None:
    """An annotation in the form that `bcnet.data.coco` reads, with both masks and their boxes.

    - No usable amodal mask (absent, empty, polygons of fewer than 3 points, no pixel in the image): returns None, and
      the annotation is counted as dropped.
    - No usable visible mask: the object is fully hidden, which is counted. It has only an amodal mask, and its visible
      box has zero size.
    - A box that is absent, or whose x, y lies outside the image, is replaced by the box of the mask's pixels.

    Crowds get only the visible mask. A crowd without a usable mask is represented by its box; without a box it is
    dropped and counted.

    Args:
        annotation: source of ``id``, ``category_id``, ``iscrowd`` and ``ignore``.
        record: its image.
        findings: collects unusual values.
        visible, amodal: polygons or RLE; None if absent.
        bbox, amodal_bbox: xywh boxes of the file; None if it has none, or if it is not known which of the two masks
            they belong to.

    Raises:
        ValueError: a mask is neither polygons nor an RLE of the image's size, or its content is malformed.
    """
    label = annotation_label(annotation)
    common = {key: annotation.get(key) for key in ("id", "category_id", "iscrowd", "ignore")}
    if read_flag("iscrowd", common["iscrowd"]) or read_flag("ignore", common["ignore"]):
        return _crowd(common, visible, bbox, record, findings, label)
    usable_amodal, amodal_bbox = _mask_and_box("amodal mask", amodal, amodal_bbox, record, findings, label)
    if usable_amodal is None:
        findings.drop("annotations without an amodal mask in the image, dropped", label)
        return None
    if visible is amodal and bbox is None:  # nothing is hidden
        usable_visible, bbox = usable_amodal, amodal_bbox
    else:
        usable_visible, bbox = _mask_and_box("visible mask", visible, bbox, record, findings, label)
    if usable_visible is None:
        findings.note("objects without a visible pixel, fully hidden", label)
        bbox = [*amodal_bbox[:2], 0, 0]
    return {
        **common,
        "bbox": bbox,
        "segmentation": usable_visible,
        "amodal_segmentation": usable_amodal,
        "amodal_bbox": amodal_bbox,
    }


def _crowd(
    common: dict, visible: object, bbox: Any, record: ImageRecord, findings: Findings, label: str
) -> dict | None:
    try:
        segmentation, box = _mask_and_box("visible mask", visible, bbox, record, findings, label)
    except ValueError:  # malformed; the reader uses the box instead and reports it
        segmentation, box = visible, bbox
    if segmentation is None:
        box = bbox
    if not _is_box_in_image(box, record):
        findings.drop("crowds without a usable mask or box, dropped", label)
        return None
    return {**common, "bbox": box, "segmentation": segmentation}


def _mask_and_box(
    key: str, segmentation: object, box: Any, record: ImageRecord, findings: Findings, label: str
) -> tuple[list | dict | None, list[float]]:
    """A mask with its box, or None and an empty box if it has no pixels."""
    nothing = None, [0.0, 0.0, 0.0, 0.0]
    if segmentation is None or segmentation == []:
        return nothing
    mask = read_mask(key, segmentation, record, findings, label)
    if mask is None:
        return nothing
    if box is not None and _is_box_in_image(box, record):
        return mask.segmentation, box
    pixels_box = mask_box(mask.segmentation, record)
    if pixels_box[2] == 0 or pixels_box[3] == 0:
        return nothing
    if box is not None:
        what = f"boxes malformed or starting outside the image, replaced by the box of the {key}"
        findings.note(what, label, f"it is {short(box)}")
    return mask.segmentation, pixels_box


def _is_box_in_image(box: Any, record: ImageRecord) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not all(is_finite(value) for value in box):
        return False
    x, y, width, height = box
    return 0 <= x < record.width and 0 <= y < record.height and width > 0 and height > 0


def as_polygons(segmentation: object) -> object:
    """Wraps a single flat polygon in a list, as in COCO's format; returns anything else unchanged."""
    if isinstance(segmentation, list) and segmentation and not isinstance(segmentation[0], (list, dict)):
        return [segmentation]
    return segmentation
