"""One image's annotations of a COCO json as the occluder rule needs them, and what keeps one out.

What is dropped here and what is kept follows the reader of `bcnet.data.coco`, which raises where this skips.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.ops.rle import SegmentationError, box_rle, segmentation_to_rle


class Fault(NamedTuple):
    """What is wrong with the annotation at a position of the file's list."""

    position: int
    reason: str  # the same words for all annotations of the kind, for counting
    message: str  # with the actual value


@dataclass
class ImageInstances:
    """The well-formed instances of an image, crowds aside.

    Attributes:
        image_size: (H, W); (0, 0) where the image has no valid one, and then there are no instances.
        positions: of the annotations in the file's list, as are all that follow.
        boxes: COCO's xywh.
        rles: compressed RLEs of the visible masks.
        in_front: bool [G, G], True at [i, j] where j lies in front of i, by the annotations' ``depth`` (smaller
            is nearer); None where not every instance has one.
        crowds: how many crowd regions there are besides (``iscrowd`` or ``ignore``).
        skipped: the annotations left out, one fault each.
        noted: what is odd but has a meaning, and is therefore not left out.
    """

    image_size: tuple[int, int]
    positions: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    rles: list[dict] = field(default_factory=list)
    in_front: np.ndarray | None = None
    crowds: int = 0
    skipped: list[Fault] = field(default_factory=list)
    noted: list[Fault] = field(default_factory=list)


def read_coco_json(path: str) -> tuple[dict, bytes]:
    """Reads a COCO json whole.

    Returns:
        Its content, and the file's bytes.

    Raises:
        ValueError: not JSON, no lists of images and annotations, or entries there that are no objects; an
            image without id, or two images of one id. Names the file and the value.
    """
    with open(path, "rb") as file:
        text = file.read()
    try:
        content = json.loads(text)
    except ValueError as error:  # JSONDecodeError, or bytes that are no text
        raise ValueError(f"{path} is not valid JSON (a truncated download?): {error}") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path} is no COCO file of instances: it has no list of {key}")
        for position, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                raise ValueError(f"{path}: entry {position} of {key} is no object but {entry!r:.60}")
    seen = set()
    for position, image in enumerate(content["images"]):
        image_id = image.get("id")
        if not is_id(image_id):
            raise ValueError(f"{path}: image at position {position} has the id {image_id!r:.60}")
        if image_id in seen:
            raise ValueError(f"{path}: two images have the id {image_id!r}")
        seen.add(image_id)
    return content, text


def positions_by_image(content: dict) -> tuple[list[list[int]], list[Fault]]:
    """Positions of every image's annotations, in the order of the images; and the annotations of no image."""
    groups: dict = {image["id"]: [] for image in content["images"]}
    orphans = []
    for position, annotation in enumerate(content["annotations"]):
        image_id = annotation.get("image_id")
        if is_id(image_id) and image_id in groups:
            groups[image_id].append(position)
        else:
            orphans.append(Fault(position, "image_id not among the images", f"image_id is {image_id!r:.60}"))
    return list(groups.values()), orphans


def read_instances(image: dict, annotations: Sequence[tuple[int, dict]]) -> ImageInstances:
    """Sorts an image's annotations into instances, crowds and malformed ones.

    Of a list of polygons, those of fewer than 3 points or with an odd count of numbers are dropped (as
    detectron2 does, and noted); an annotation is skipped where none is left. An object without a
    segmentation but with an ``amodal_segmentation`` is hidden altogether, and its visible mask empty.

    Args:
        image: an entry of the json's images.
        annotations: (position, entry of the json's annotations) of the image.
    """
    size = image_size(image)
    if size is None:
        message = f"height and width are {image.get('height')!r:.20} and {image.get('width')!r:.20}"
        faults = [Fault(position, "image without a valid height and width", message) for position, _ in annotations]
        return ImageInstances((0, 0), skipped=faults)
    instances = ImageInstances(size)
    depths = []
    for position, annotation in annotations:
        if is_crowd(annotation):
            instances.crowds += 1
            continue
        box, depth = annotation.get("bbox"), annotation.get("depth")
        fault = box_fault(box, *size)
        if fault is None and depth is not None and not _is_finite(depth):
            fault = "depth not a finite number", f"depth is {depth!r:.40}"
        if fault is None:
            try:
                rle, dropped = _visible_rle(annotation, size)
            except SegmentationError as error:
                fault = error.reason, str(error)
        if fault is not None:
            instances.skipped.append(Fault(position, *fault))
            continue
        instances.positions.append(position)
        instances.boxes.append(box)
        instances.rles.append(rle)
        depths.append(depth)
        if dropped:
            reason = "polygons of fewer than 3 points or an odd count of numbers dropped"
            instances.noted.append(Fault(position, reason, f"{dropped} of its polygons"))
        if box[2] == 0 or box[3] == 0:
            instances.noted.append(Fault(position, "box of zero width or height", f"bbox is {box}"))
        elif coco_mask.area(rle) == 0:
            instances.noted.append(Fault(position, "mask that covers no pixel's centre", f"bbox is {box}"))
    if None not in depths:
        depth = np.array(depths, dtype=np.float64)
        instances.in_front = depth < depth[:, None]
    elif any(depth is not None for depth in depths):
        reason = "depth missing, so that the order in the image counts as unknown"
        instances.noted += [
            Fault(instances.positions[n], reason, "depth is None") for n, d in enumerate(depths) if d is None
        ]
    return instances


def _visible_rle(annotation: dict, size: tuple[int, int]) -> tuple[dict, int]:
    """The mask of an annotation, and how many polygons were dropped from it."""
    segmentation = annotation.get("segmentation")
    if not segmentation and annotation.get("amodal_segmentation"):
        return box_rle(0, 0, 0, 0, size), 0
    segmentation, dropped = _without_short_polygons(segmentation)
    return segmentation_to_rle(segmentation, *size), dropped


def is_crowd(annotation: dict) -> bool:
    """Whether an annotation is a crowd region, or one to be ignored, which is treated alike."""
    return bool(annotation.get("iscrowd")) or bool(annotation.get("ignore"))


def image_size(image: dict) -> tuple[int, int] | None:
    """(H, W) of an entry of the json's images, or None where it is missing or below 1."""
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if _is_side(height) and _is_side(width) else None


def is_id(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def box_fault(box: object, height: int, width: int) -> tuple[str, str] | None:
    """Reason and message if a COCO xywh box is malformed or wholly outside its image."""
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(_is_finite(value) for value in box):
        return "bbox not four finite numbers", f"bbox is {box!r:.80}"
    x, y, box_width, box_height = box
    if box_width < 0 or box_height < 0:
        return "bbox of negative size", f"bbox is {box}"
    if box_width == 0 or box_height == 0:
        return None
    if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
        return "bbox outside the image", f"bbox is {box}, the image {width} x {height} pixels"
    return None


def _without_short_polygons(segmentation: object) -> tuple[object, int]:
    """A list of polygons without those that enclose nothing, and how many they were; all, if none is left."""
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return segmentation, 0
    kept = [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]
    return (kept, len(segmentation) - len(kept)) if kept else (segmentation, 0)


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


def _is_side(value: object) -> bool:
    return _is_finite(value) and value >= 1 and int(value) == value
