"""Occlusion order from visible and amodal masks: an occluder's visible pixels are hidden pixels of the occludee."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.amodal import amodal_annotation
from bcnet.data.findings import Findings
from bcnet.data.order import Pairs
from bcnet.data.reader import AnnotationFormat
from bcnet.data.records import ImageRecord
from bcnet.data.source_masks import amodal_rle, visible_rle
from bcnet.occlusion.rule import MIN_PIXELS
from bcnet.ops.rle import rle_difference, rle_intersection


def order_by_hidden_pixels(record: ImageRecord, annotations: Sequence[dict], findings: Findings) -> Pairs | None:
    """The pairs (i, j) of `ImageRecord.in_front`: more than 20 hidden pixels of i are visible pixels of j.

    None where an object lacks its amodal mask.
    """
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    if not all(record.instances[i].amodal for i in objects):
        return None
    visible, hidden = {}, {}
    for i in objects:
        instance = record.instances[i]
        amodal = amodal_rle(record, instance)
        visible[i] = visible_rle(record, instance)
        hidden[i] = rle_difference(amodal, visible[i])
    boxes = {i: (coco_mask.toBbox(hidden[i]), coco_mask.toBbox(visible[i])) for i in objects}
    return [
        (i, j)
        for i in objects
        for j in objects
        if i != j
        and _overlap(boxes[i][0], boxes[j][1])
        and coco_mask.area(rle_intersection(hidden[i], visible[j])) > MIN_PIXELS
    ]


def _overlap(first: np.ndarray, second: np.ndarray) -> bool:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    return bool((high > low).all())


def _translate(annotation: dict, record: ImageRecord, findings: Findings) -> dict | None:
    if annotation.get("amodal_segmentation") is None:
        return annotation
    translated = amodal_annotation(
        annotation,
        record,
        findings,
        visible=annotation["segmentation"],
        amodal=annotation["amodal_segmentation"],
    )
    kept = {key: annotation[key] for key in ("hidden_fraction", "attributes") if key in annotation}
    return None if translated is None else translated | kept


# Annotations with `segmentation` and `amodal_segmentation`, without boxes.
HIDDEN_PIXELS = AnnotationFormat(translate=_translate, order=order_by_hidden_pixels, has_area=False, has_box=False)
