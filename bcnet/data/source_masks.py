"""Mask layers of an image's instances (occludee, occluder, amodal) in the original image.

The mappers of both hosts take them from here.

Letters: G instances, H x W image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bcnet.data.records import ImageRecord, InstanceRecord
from bcnet.maps import AMODAL, OCCLUDEE, OCCLUDER
from bcnet.occlusion.rule import occluder_rles
from bcnet.ops.rle import box_rle, segmentation_to_rle


@dataclass
class SourceMasks:
    """The masks of the G instances of an image, crowds left out.

    Attributes:
        positions: place of each instance in the record's instances.
        boxes: xywh in absolute pixels, as in the file.
        layers: by layer name G compressed RLEs [H, W]; None is an empty mask.
    """

    positions: list[int]
    boxes: list[Sequence[float]]
    layers: dict[str, list[dict | None]]


def target_boxes(record: ImageRecord, mask_target: str) -> tuple[list[int], list[Sequence[float]]]:
    """Positions and boxes (xywh) of the instances that are no crowds."""
    positions = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    boxes = []
    for instance in (record.instances[i] for i in positions):
        amodal = mask_target == "amodal" and instance.amodal_bbox is not None
        boxes.append(instance.amodal_bbox if amodal else instance.bbox)
    return positions, boxes


def source_masks(
    record: ImageRecord, mask_target: str = "visible", layers: Sequence[str] = (OCCLUDEE, OCCLUDER)
) -> SourceMasks:
    """Boxes and mask layers of an image's instances, crowds left out.

    "occludee" is the visible or the amodal mask by `mask_target`; "amodal" is the amodal mask. "occluder" is the file's
    own where it has them, and otherwise derived by `occluder_rles` from the visible masks, with the record's depth
    order where it is known.

    Args:
        record: the image.
        mask_target: target of the occludee layer, "visible" or "amodal".
        layers: names of the layers to make.

    Raises:
        ValueError: an instance's segmentation is missing or malformed; names the file, the annotation and
            the value. A layer that is not known.
    """
    positions, boxes = target_boxes(record, mask_target)
    instances = [record.instances[i] for i in positions]
    visible = [visible_rle(record, instance) for instance in instances]
    makers = {
        OCCLUDEE: lambda: visible if mask_target == "visible" else [amodal_rle(record, i) for i in instances],
        OCCLUDER: lambda: _occluders(record, positions, boxes, visible),
        AMODAL: lambda: [amodal_rle(record, i) for i in instances],
    }
    if unknown := [name for name in layers if name not in makers]:
        raise ValueError(f"unknown mask layer {unknown[0]!r}; there are: {', '.join(makers)}")
    return SourceMasks(positions, boxes, {name: makers[name]() for name in layers})


def _occluders(
    record: ImageRecord, positions: list[int], boxes: list[Sequence[float]], visible: list[dict]
) -> list[dict | None]:
    instances = [record.instances[i] for i in positions]
    if all(instance.occluder is not None for instance in instances):
        derived: list[dict | None] = [None] * len(instances)
    else:
        in_front = in_front_matrix(record, positions)
        derived = occluder_rles(
            np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
            visible,
            np.zeros(len(instances), dtype=bool),
            (record.height, record.width),
            in_front=in_front,
        )
    for index, instance in enumerate(instances):
        if instance.occluder is not None:
            derived[index] = (
                _rle(record, instance, "bg_object_segmentation", instance.occluder) if instance.occluder else None
            )
    return derived


def in_front_matrix(record: ImageRecord, positions: Sequence[int]) -> np.ndarray | None:
    """bool [G, G] of the instances at these positions, True at [i, j] where j lies in front of i.

    None where the order is not known.
    """
    if record.in_front is None:
        return None
    matrix = np.zeros((len(record.instances), len(record.instances)), dtype=bool)
    for behind, front in record.in_front:
        matrix[behind, front] = True
    return matrix[np.ix_(positions, positions)]


def visible_rle(record: ImageRecord, instance: InstanceRecord) -> dict:
    """The visible mask of an object, empty where it is hidden altogether.

    Raises:
        ValueError: it has no mask, or a malformed one; names the file, the annotation and the value.
    """
    if instance.segmentation:
        return _rle(record, instance, "segmentation", instance.segmentation)
    if instance.amodal:  # an object that is hidden altogether
        return box_rle(0, 0, 0, 0, (record.height, record.width))
    raise ValueError(
        f"{instance_label(record, instance)} has no segmentation; training masks needs one (MODEL.MASK_ON)"
    )


def amodal_rle(record: ImageRecord, instance: InstanceRecord) -> dict:
    """The amodal mask of an object; raises as `visible_rle`."""
    if not instance.amodal:
        raise ValueError(
            f"{instance_label(record, instance)} has no amodal segmentation, which INPUT.MASK_TARGET 'amodal' and "
            "MODEL.BILAYER.AMODAL require"
        )
    return _rle(record, instance, "amodal segmentation", instance.amodal)


def missing_masks(
    record: ImageRecord, mask_target: str = "visible", layers: Sequence[str] = (OCCLUDEE, OCCLUDER)
) -> list[str]:
    """One message for each instance of a record that cannot be trained on for want of a segmentation.

    Args:
        record: the image.
        mask_target, layers: as `source_masks` takes them.
    """
    needs_amodal = mask_target == "amodal" or AMODAL in layers
    messages = []
    for instance in record.instances:
        if instance.iscrowd:
            continue
        if not instance.segmentation and not instance.amodal:
            messages.append(f"{instance_label(record, instance)} has no segmentation")
        elif needs_amodal and not instance.amodal:
            messages.append(f"{instance_label(record, instance)} has no amodal segmentation")
    return messages


def _rle(record: ImageRecord, instance: InstanceRecord, key: str, segmentation: list | dict) -> dict:
    try:
        return segmentation_to_rle(segmentation, record.height, record.width)
    except ValueError as error:
        raise ValueError(f"{instance_label(record, instance)}: {key}: {error}") from error


def instance_label(record: ImageRecord, instance: InstanceRecord) -> str:
    """How messages name an instance: annotation file, annotation id, image id and image file."""
    source = f"{record.annotation_file}: " if record.annotation_file else ""
    return f"{source}annotation {instance.annotation_id!r} of image {record.image_id!r} ({record.file_name})"
