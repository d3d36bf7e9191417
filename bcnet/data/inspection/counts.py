"""Counts of a data set: images, objects, classes, sizes, occlusion, pairs of objects with a known order.

Letters: G objects of an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.records import ImageRecord, InstanceRecord
from bcnet.data.source_masks import amodal_rle, has_mask, in_front_matrix, unknown_matrix, visible_rle
from bcnet.occlusion.rule import IOU_THRESHOLD, inclusive_box_iou, occluder_rles
from bcnet.occlusion.shares import hidden_share

SMALL, MEDIUM = 32**2, 96**2  # COCO's limits of the area


@dataclass
class DatasetCounts:
    """Counts over the images of a data set; objects are annotations that are not crowds.

    Attributes:
        images, empty: all images, and those without objects.
        objects, crowds: numbers of annotations.
        per_class: objects by class 0..K-1.
        without_mask, with_amodal: objects with a box alone, and with an amodal mask.
        small, medium, large: objects by the area of the visible mask, COCO's limits 32 x 32 and 96 x 96 pixels.
        heights, widths: of the images.
        areas: of the objects, in pixels.
        per_image: objects of each image.
        neighbours: objects whose box overlaps the object's by the occluder rule's IoU, summed over the objects.
        with_occluder: objects with an occluder mask by the occluder rule.
        hidden: objects known to be hidden in part: by their amodal mask, hidden fraction, or flag.
        known_hidden: objects of which that is known, either way.
        pairs, ordered_pairs: pairs of neighbours, and those whose order is annotated.
    """

    images: int = 0
    empty: int = 0
    objects: int = 0
    crowds: int = 0
    per_class: Counter[int] = field(default_factory=Counter)
    without_mask: int = 0
    with_amodal: int = 0
    small: int = 0
    medium: int = 0
    large: int = 0
    heights: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    per_image: list[int] = field(default_factory=list)
    neighbours: int = 0
    with_occluder: int = 0
    hidden: int = 0
    known_hidden: int = 0
    pairs: int = 0
    ordered_pairs: int = 0


def count_dataset(records: Sequence[ImageRecord]) -> DatasetCounts:
    """Counts the images and objects of a data set; no image is opened."""
    counts = DatasetCounts()
    for record in records:
        objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
        counts.images += 1
        counts.empty += not objects
        counts.objects += len(objects)
        counts.crowds += len(record.instances) - len(objects)
        counts.heights.append(record.height)
        counts.widths.append(record.width)
        counts.per_image.append(len(objects))
        for i in objects:
            _count_object(counts, record, record.instances[i])
        _count_pairs(counts, record, objects)
    return counts


def _count_object(counts: DatasetCounts, record: ImageRecord, instance: InstanceRecord) -> None:
    counts.per_class[instance.category] += 1
    counts.without_mask += not has_mask(instance)
    counts.with_amodal += bool(instance.amodal)
    area = instance.area
    if area is None and has_mask(instance):
        area = float(coco_mask.area(visible_rle(record, instance)))
    area = float(instance.bbox[2] * instance.bbox[3]) if area is None else area
    counts.areas.append(area)
    counts.small += area < SMALL
    counts.medium += SMALL <= area < MEDIUM
    counts.large += area >= MEDIUM
    is_hidden = _is_hidden(record, instance)
    counts.known_hidden += is_hidden is not None
    counts.hidden += bool(is_hidden)


def _is_hidden(record: ImageRecord, instance: InstanceRecord) -> bool | None:
    """Whether a part of the object is hidden; None if nothing says so."""
    if instance.hidden_fraction is not None:
        return instance.hidden_fraction > 0
    if instance.amodal:
        return hidden_share(amodal_rle(record, instance), visible_rle(record, instance)) > 0
    return instance.occluded


def _count_pairs(counts: DatasetCounts, record: ImageRecord, objects: list[int]) -> None:
    if not objects:
        return
    boxes = np.array([record.instances[i].bbox for i in objects], dtype=np.float64).reshape(-1, 4)
    near = inclusive_box_iou(boxes) > IOU_THRESHOLD
    np.fill_diagonal(near, False)
    counts.neighbours += int(near.sum())
    counts.pairs += int(near.sum()) // 2
    in_front = in_front_matrix(record, objects)
    if in_front is not None:
        counts.ordered_pairs += int(np.triu(near & ~unknown_matrix(record, objects)).sum())
    masked = [k for k, i in enumerate(objects) if has_mask(record.instances[i])]
    rles = [visible_rle(record, record.instances[objects[k]]) for k in masked]
    crowd = np.zeros(len(masked), dtype=bool)
    occluders = occluder_rles(
        boxes[masked],
        rles,
        crowd,
        (record.height, record.width),
        in_front=None if in_front is None else in_front[np.ix_(masked, masked)],
    )
    counts.with_occluder += sum(occluder is not None for occluder in occluders)
