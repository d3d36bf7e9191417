"""Mask layers of an image's instances (occludee, occluder, amodal) in the original image.

Used by the mappers of both hosts.

Letters: G instances, H x W image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.records import ImageRecord, InstanceRecord
from bcnet.maps import AMODAL, OCCLUDEE, OCCLUDER, unknown_layer
from bcnet.occlusion.rule import occluder_rles
from bcnet.occlusion.truth import known_occluders, unknown_amodal
from bcnet.ops.rle import RLE, box_rle, rle_intersection, segmentation_to_rle

NEIGHBOURS, FRONT = OCCLUDER_TARGETS = ("neighbours", "front")
LAYERS = (OCCLUDEE, OCCLUDER, AMODAL, NEIGHBOURS, FRONT)


@dataclass
class SourceMasks:
    """The masks of the G instances of an image, crowds excluded.

    Attributes:
        positions: position of each instance in the record's instances.
        boxes: xywh in absolute pixels, as in the file.
        layers: G compressed RLEs [H, W] by layer name; None is an empty mask. A layer with possibly unknown pixels is
            followed by its `unknown_layer`.
    """

    positions: list[int]
    boxes: list[Sequence[float]]
    layers: dict[str, list[RLE | None]]


def target_boxes(record: ImageRecord, mask_target: str) -> tuple[list[int], list[Sequence[float]]]:
    """Positions and boxes (xywh) of the instances that are not crowds."""
    positions = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    boxes = []
    for instance in (record.instances[i] for i in positions):
        amodal = mask_target == "amodal" and instance.amodal_bbox is not None
        boxes.append(instance.amodal_bbox if amodal else instance.bbox)
    return positions, boxes


def source_masks(
    record: ImageRecord,
    mask_target: str = "visible",
    layers: Sequence[str] = (OCCLUDEE, OCCLUDER),
    occluder_target: str = "neighbours",
) -> SourceMasks:
    """Boxes and mask layers of an image's instances, crowds excluded.

    "occludee" is the visible or the amodal mask, selected by `mask_target`.

    "occluder" depends on `occluder_target`: "neighbours" is the published rule, `occluder_rles` of all neighbours that
    are not known to lie behind, or the file's occluder mask if it has one. "front" is the union of what is known to lie
    in front (`known_occluders`), with the unknown pixels as a further layer; the file's occluder mask does not depend
    on the order and is not used.

    "neighbours" and "front" are the two occluder layers under names of their own, for heads that learn from both.

    "amodal" is the file's amodal mask. Without one, it is the visible mask before objects were pasted, with the unknown
    pixels (`unknown_amodal`) as a further layer.

    Args:
        record: the image.
        mask_target: target of the occludee layer, "visible" or "amodal".
        layers: names of the layers to create.
        occluder_target: "neighbours" or "front".

    Raises:
        ValueError: an instance's segmentation is missing or malformed; names the file, the annotation and the value. Or
            an unknown layer or target.
    """
    if unknown := [name for name in layers if name not in LAYERS]:
        raise ValueError(f"unknown mask layer {unknown[0]!r}; known layers: {', '.join(LAYERS)}")
    if occluder_target not in OCCLUDER_TARGETS:
        raise ValueError(f"occluder_target must be one of {', '.join(OCCLUDER_TARGETS)}, got {occluder_target!r}")
    positions, boxes = target_boxes(record, mask_target)
    instances = [record.instances[i] for i in positions]
    visible = [visible_rle(record, instance) for instance in instances]
    made: dict[str, list[RLE | None]] = {}
    for name in layers:
        if name == OCCLUDEE:
            made[name] = list(visible) if mask_target == "visible" else [amodal_rle(record, i) for i in instances]
        elif name == AMODAL:
            made |= _amodal(record, positions, boxes, visible)
        elif (occluder_target if name == OCCLUDER else name) == FRONT:
            made |= _front(record, positions, boxes, visible, name)
        else:
            made[name] = _neighbours(record, positions, boxes, visible)
    return SourceMasks(positions, boxes, made)


def _neighbours(
    record: ImageRecord, positions: list[int], boxes: list[Sequence[float]], visible: list[RLE]
) -> list[RLE | None]:
    """The occluder masks by the published rule, of neighbours that are not known to lie behind."""
    instances = [record.instances[i] for i in positions]
    if all(instance.occluder is not None for instance in instances):
        derived: list[RLE | None] = [None] * len(instances)
    else:
        in_front, unknown_order = depth_order(record, positions)
        derived = occluder_rles(
            np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
            visible,
            np.zeros(len(instances), dtype=bool),
            (record.height, record.width),
            in_front=in_front | unknown_order,
        )
    for index, instance in enumerate(instances):
        if instance.occluder is not None:
            derived[index] = (
                _rle(record, instance, "bg_object_segmentation", instance.occluder) if instance.occluder else None
            )
    return derived


def _front(
    record: ImageRecord, positions: list[int], boxes: list[Sequence[float]], visible: list[RLE], name: str
) -> dict[str, list[RLE | None]]:
    """The occluder layer, under this name, from instances known to lie in front, and its unknown pixels."""
    in_front, unknown_order = depth_order(record, positions)
    regions = _crowd_rles(record)
    occluders, unknown = known_occluders(
        _frames(record, positions, boxes),
        [*visible, *regions],
        _with_columns(in_front, len(regions), False),
        _with_columns(unknown_order, len(regions), ~_is_pasted(record, positions)),
        (record.height, record.width),
    )
    return {name: occluders, unknown_layer(name): unknown}


def _amodal(
    record: ImageRecord, positions: list[int], boxes: list[Sequence[float]], visible: list[RLE]
) -> dict[str, list[RLE | None]]:
    """The amodal layer, and its unknown pixels for instances without an amodal mask in the file."""
    instances = [record.instances[i] for i in positions]
    if all(instance.amodal for instance in instances):
        return {AMODAL: [amodal_rle(record, instance) for instance in instances]}
    in_front, unknown_order = depth_order(record, positions)
    uncovered = [instance.uncovered or mask for instance, mask in zip(instances, visible, strict=True)]
    regions = _crowd_rles(record, uncovered=True)
    may_hide = (in_front & ~_is_pasted(record, positions)) | unknown_order
    unknown = unknown_amodal(
        _frames(record, positions, boxes),
        [*uncovered, *regions],
        _with_columns(may_hide, len(regions), True),
        (record.height, record.width),
    )
    known = [amodal_rle(record, instance) if instance.amodal else None for instance in instances]
    return {
        AMODAL: [mask or other for mask, other in zip(known, uncovered, strict=True)],
        unknown_layer(AMODAL): [None if mask else other for mask, other in zip(known, unknown, strict=True)],
    }


def _with_columns(matrix: np.ndarray, count: int, values: np.ndarray | bool) -> np.ndarray:
    """A bool matrix [G, G] with `count` columns of the values [G] appended."""
    column = np.broadcast_to(np.asarray(values).reshape(-1, 1), (len(matrix), count))
    return np.concatenate([matrix, column], axis=1)


def _frames(record: ImageRecord, positions: list[int], boxes: list[Sequence[float]]) -> np.ndarray:
    """The target boxes, extended to the masks before objects were pasted: float64 [G, 4], xywh."""
    frames = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).copy()
    for frame, instance in zip(frames, (record.instances[i] for i in positions), strict=True):
        if instance.uncovered is not None:
            box = coco_mask.toBbox(instance.uncovered)
            corner = np.maximum(frame[:2] + frame[2:], box[:2] + box[2:])
            frame[:2] = np.minimum(frame[:2], box[:2])
            frame[2:] = corner - frame[:2]
    return frames


def _crowd_rles(record: ImageRecord, uncovered: bool = False) -> list[RLE]:
    """The crowd regions; with `uncovered`, as before objects were pasted over them."""
    masks = []
    for crowd in (instance for instance in record.instances if instance.iscrowd):
        if uncovered and crowd.uncovered is not None:
            masks.append(crowd.uncovered)
        elif crowd.segmentation:
            masks.append(_rle(record, crowd, "segmentation", crowd.segmentation))
        else:
            x, y, width, height = crowd.bbox
            masks.append(box_rle(int(x), int(y), int(x + width), int(y + height), (record.height, record.width)))
    return masks


def _is_pasted(record: ImageRecord, positions: Sequence[int]) -> np.ndarray:
    """bool [G]: which of the instances at these positions were pasted."""
    return np.asarray(positions, dtype=np.int64) >= len(record.instances) - len(record.pasted)


def depth_order(record: ImageRecord, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The known and unknown depth order of the instances at these (ascending) positions.

    Returns:
        Two bool matrices [G, G]: True at [i, j] if j lies in front of i; True at [i, j] if the order of i and j is
        unknown.
    """
    in_front = in_front_matrix(record, positions)
    unknown = unknown_matrix(record, positions)
    np.fill_diagonal(unknown, False)
    in_front = np.zeros_like(unknown) if in_front is None else in_front
    pasted = _is_pasted(record, positions)
    unknown &= ~(pasted | pasted[:, None])
    # A pasted instance lies in front of all before it in the list, or behind them.
    on_top = np.zeros_like(pasted)
    on_top[pasted] = [record.pasted[position - len(record.instances)] for position in np.asarray(positions)[pasted]]
    before = np.triu(np.ones_like(unknown), k=1)
    in_front = in_front | (before & on_top) | (before.T & (pasted & ~on_top)[:, None])
    return in_front, unknown


def unknown_matrix(record: ImageRecord, positions: Sequence[int]) -> np.ndarray:
    """bool [G, G] of the instances at these positions, True at [i, j] if their depth order is not annotated."""
    if record.in_front is None:
        return np.full((len(positions),) * 2, True)
    unordered = np.isin(positions, record.unordered)
    pairs = np.zeros((len(record.instances), len(record.instances)), dtype=bool)
    for i, j in record.unordered_pairs:
        pairs[i, j] = pairs[j, i] = True
    return unordered | unordered[:, None] | pairs[np.ix_(positions, positions)]


def overlapping_pairs(record: ImageRecord) -> list[tuple[int, int]]:
    """Positions (i, j), i < j, of objects whose visible masks share a pixel; an object without a mask is its box."""
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    boxes = np.array([record.instances[i].bbox for i in objects], dtype=np.float64).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    # A mask reaches up to a pixel beyond the box of its polygons.
    near = (np.minimum(high[:, None], high) + 1 > np.maximum(low[:, None], low) - 1).all(axis=2)
    pairs = [(objects[a], objects[b]) for a, b in np.argwhere(np.triu(near, k=1)).tolist()]
    rles = {i: _region(record, record.instances[i]) for i in {i for pair in pairs for i in pair}}
    return [(i, j) for i, j in pairs if coco_mask.area(rle_intersection(rles[i], rles[j]))]


def _region(record: ImageRecord, instance: InstanceRecord) -> RLE:
    if has_mask(instance):
        return visible_rle(record, instance)
    x, y, width, height = instance.bbox
    return box_rle(int(x), int(y), math.ceil(x + width), math.ceil(y + height), (record.height, record.width))


def in_front_matrix(record: ImageRecord, positions: Sequence[int]) -> np.ndarray | None:
    """bool [G, G] of the instances at these positions, True at [i, j] if j lies in front of i.

    None if the depth order is unknown.
    """
    if record.in_front is None:
        return None
    matrix = np.zeros((len(record.instances), len(record.instances)), dtype=bool)
    for behind, front in record.in_front:
        matrix[behind, front] = True
    return matrix[np.ix_(positions, positions)]


def has_mask(instance: InstanceRecord) -> bool:
    """Whether an instance has a visible mask, or is fully hidden; otherwise it has a box alone."""
    return bool(instance.segmentation or instance.amodal)


def visible_rle(record: ImageRecord, instance: InstanceRecord) -> RLE:
    """The visible mask of an object, empty if it is fully hidden.

    Raises:
        ValueError: it has no mask, or a malformed one; names the file, the annotation and the value.
    """
    if instance.segmentation:
        return _rle(record, instance, "segmentation", instance.segmentation)
    if instance.amodal:  # a fully hidden object
        return box_rle(0, 0, 0, 0, (record.height, record.width))
    raise ValueError(
        f"{instance_label(record, instance)} has no segmentation; training masks needs one (MODEL.MASK_ON)"
    )


def amodal_rle(record: ImageRecord, instance: InstanceRecord) -> RLE:
    """The amodal mask of an object; raises the same errors as `visible_rle`."""
    if not instance.amodal:
        raise ValueError(
            f"{instance_label(record, instance)} has no amodal segmentation, which INPUT.MASK_TARGET 'amodal' and "
            "MODEL.BILAYER.AMODAL require"
        )
    return _rle(record, instance, "amodal segmentation", instance.amodal)


def missing_masks(
    record: ImageRecord, mask_target: str = "visible", layers: Sequence[str] = (OCCLUDEE, OCCLUDER)
) -> list[str]:
    """One message for each instance of a record that lacks a segmentation required for training.

    Args:
        record: the image.
        mask_target, layers: as in `source_masks`.
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


def _rle(record: ImageRecord, instance: InstanceRecord, key: str, segmentation: list | dict) -> RLE:
    try:
        return segmentation_to_rle(segmentation, record.height, record.width)
    except ValueError as error:
        raise ValueError(f"{instance_label(record, instance)}: {key}: {error}") from error


def instance_label(record: ImageRecord, instance: InstanceRecord) -> str:
    """Label of an instance in messages: annotation file, annotation id, image id and image file."""
    source = f"{record.annotation_file}: " if record.annotation_file else ""
    return f"{source}annotation {instance.annotation_id!r} of image {record.image_id!r} ({record.file_name})"
