"""Annotations for the evaluators from the records of a data set: numbered, with RLE masks, boxes and areas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pycocotools import mask as coco_mask

from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord
from bcnet.data.source_masks import amodal_rle, visible_rle
from bcnet.occlusion.rule import crop_rle
from bcnet.ops.rle import RLE

# Object sizes in the evaluators end at 1e10 pixels; an instance beyond every range is ignored.
IGNORED_AREA = 1e11


def numbered_annotations(
    records: Sequence[ImageRecord], info: DatasetInfo, image_numbers: Mapping[int | str, int]
) -> tuple[list[dict], dict[int, list[tuple[int, int]]]]:
    """The evaluators' annotations, numbered from 1 in the records' order, and the known depth orders.

    Args:
        records: the images, in any order.
        info: whose categories the records' classes are.
        image_numbers: the evaluators' image ids by the data set's.

    Returns:
        Annotations as in `GroundTruth.annotations`, and by image number pairs of annotation numbers (i, j), j in front
        of i.

    Raises:
        ValueError: a malformed segmentation, or a class that the data set does not have; names the annotation.
    """
    annotations: list[dict] = []
    in_front: dict[int, list[tuple[int, int]]] = {}
    for record in records:
        first = len(annotations) + 1
        if record.in_front is not None:
            pairs = [(first + i, first + j) for i, j in record.in_front]
            in_front[image_numbers[record.image_id]] = pairs
        for number, annotation in enumerate(_annotations_of(record), start=first):
            annotation["id"] = number
            annotation["image_id"] = image_numbers[record.image_id]
            annotation["category_id"] = _category_id(record, annotation, info)
            if number - first in record.unordered:
                annotation["unordered"] = True
            annotations.append(annotation)
    return annotations, in_front


def _category_id(record: ImageRecord, annotation: dict, info: DatasetInfo) -> int:
    number = annotation["category_id"]
    if not 0 <= number < len(info.category_ids):
        raise ValueError(
            f"data set {info.name!r}: annotation {annotation.get('annotation_id')!r} of image {record.image_id!r} is "
            f"of class {number}, but the data set has {len(info.category_ids)} classes, counted from 0"
        )
    return info.category_ids[number]


def _annotations_of(record: ImageRecord) -> Iterator[dict]:
    for instance in record.instances:
        segmentation = _segmentation(record, instance)
        annotation = {
            "annotation_id": instance.annotation_id,
            "category_id": instance.category,
            "iscrowd": int(instance.iscrowd),
            "bbox": list(instance.bbox),
            "area": _area(instance, segmentation),
            "segmentation": segmentation,
            "amodal_segmentation": amodal_rle(record, instance) if instance.amodal else None,
            "amodal_bbox": instance.amodal_bbox,
            "hidden_fraction": instance.hidden_fraction,
        }
        yield {key: value for key, value in annotation.items() if value is not None}


def _segmentation(record: ImageRecord, instance: InstanceRecord) -> RLE | None:
    """The visible mask; a crowd without one covers its box."""
    if instance.segmentation or instance.amodal:
        return visible_rle(record, instance)
    return crop_rle(instance.bbox, (record.height, record.width)) if instance.iscrowd else None


def _area(instance: InstanceRecord, segmentation: RLE | None) -> float:
    """The file's own area, or else that of the mask, or else that of the box."""
    if not instance.segmentation and instance.amodal:
        # Completely occluded: ignored, unless amodal masks are evaluated.
        return IGNORED_AREA
    if instance.area is not None:
        return instance.area
    if segmentation is None:
        return float(instance.bbox[2] * instance.bbox[3])
    return float(coco_mask.area(segmentation))
