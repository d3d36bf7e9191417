"""Masks of records for writers: visible masks, one polygon for objects of several parts, back-to-front order.

Letters: G instances, H x W image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.exporters.coco import front_counts
from bcnet.data.records import ImageRecord
from bcnet.data.source_masks import has_mask, visible_rle
from bcnet.ops.outline import rle_to_polygons
from bcnet.ops.rle import RLE, segmentation_to_rle


def back_to_front(record: ImageRecord) -> list[int]:
    """Positions of the objects, crowds aside, the farthest first.

    Where the order is not known, the larger of two masks counts as the farther one, so that small ones stay visible.
    """
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd and has_mask(instance)]
    areas = {i: int(coco_mask.area(visible_rle(record, record.instances[i]))) for i in objects}
    fronts = front_counts(record)
    return sorted(objects, key=lambda i: (-fronts[i], -areas[i], i))


def single_polygon(segmentation: list | dict, height: int, width: int) -> list[float]:
    """One polygon of the mask of a segmentation; empty for a mask without pixels.

    A single polygon stays as it is. Several parts are joined by bridges that run there and back and enclose nothing;
    the polygon covers the same pixels as the segmentation.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1:
        return list(segmentation[0])
    rle = segmentation_to_rle(segmentation, height, width)
    if isinstance(segmentation, list):
        joined = _bridged(segmentation)
        if segmentation_to_rle([joined], height, width) == rle:
            return joined
    polygons = rle_to_polygons(rle)
    return _bridged(polygons) if polygons else []


def _bridged(polygons: Sequence[Sequence[float]]) -> list[float]:
    """The polygons in one: from the first vertex around each of the others and back."""
    start = list(polygons[0][:2])
    points = list(polygons[0])
    for polygon in polygons[1:]:
        points += [*start, *polygon, *polygon[:2]]
    return points + start if len(polygons) > 1 else points


def flat_labels(record: ImageRecord) -> tuple[np.ndarray, int, int]:
    """A label image of the visible masks, nearer objects over farther ones.

    Returns:
        uint32 [H, W], 0 background and the object's place in the record's objects from 1; the number of objects that
        have pixels; and the number of pixels that objects lose to others.
    """
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd and has_mask(instance)]
    value = {i: number for number, i in enumerate(objects, start=1)}
    labels = np.zeros((record.height, record.width), dtype=np.uint32)
    count = lost = 0
    for i in back_to_front(record):
        mask = decoded(visible_rle(record, record.instances[i]))
        count += bool(mask.any())
        lost += int((labels[mask] > 0).sum())
        labels[mask] = value[i]
    return labels, count, lost


def decoded(rle: RLE) -> np.ndarray:
    """A mask as bool [H, W]."""
    return coco_mask.decode(rle).astype(bool)
