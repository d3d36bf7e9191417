"""Values of a COCO json: parsing and validation of ids, flags, sizes, numbers, boxes and masks.

Functions raise `AnnotationError`, a ValueError, with the actual value and the kind of fault; the reader adds the file
and the id. Unusual but usable values are added to the `Findings`.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from typing import Any, NamedTuple, TypeGuard, overload

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.findings import AnnotationError, Findings
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json
from bcnet.ops.rle import MAX_PIXELS, SegmentationError, checked_polygon, polygon_fault, segmentation_to_rle

_FLAGS = {"0": False, "false": False, "1": True, "true": True}


def read_coco_json(path: str) -> dict:
    """The content of a COCO json with non-empty lists of images and categories.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a COCO json; names the file.
    """
    content = read_json(path)
    check_coco_json(content, path)
    return content


def check_coco_json(content: object, path: str, lists: tuple[str, ...] = ("images", "categories")) -> None:
    """Raises ValueError unless the content is a dict with these lists, none of them empty."""
    for key in lists:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path} is not a COCO file: it has no list of {key}")
        if not content[key]:
            raise ValueError(f"{path}: the list of {key} is empty")


def read_categories(
    categories: list, annotation_file: str, image_root: str, name: str, findings: Findings
) -> tuple[DatasetInfo, dict[int, int]]:
    """The data set's description, with classes in ascending order of id, and the class 0..K-1 of each category id.

    Duplicate category names are noted.

    Raises:
        ValueError: a category without an integer id and a name, or a duplicate id; names the file.
    """
    names: dict[int, str] = {}
    for category in categories:
        fault = missing(category, ("id", "name"))
        if fault or not (is_number_id(category["id"]) and isinstance(category["name"], str)):
            raise ValueError(f"{annotation_file}: a category must have an integer id and a name, got {short(category)}")
        category_id = int(category["id"])
        if category_id in names:
            ids = [entry.get("id") for entry in categories]
            raise ValueError(f"{annotation_file}: category ids are not unique: {short(ids)}")
        names[category_id] = category["name"]
    ids = sorted(names)
    uses = Counter(names.values())
    for category_id in ids:
        if uses[names[category_id]] > 1:
            label = f"category {category_id} {names[category_id]!r}"
            findings.note("categories with a duplicate name", label)
    info = DatasetInfo(
        name=name or annotation_file,
        class_names=tuple(names[category_id] for category_id in ids),
        category_ids=tuple(ids),
        annotation_file=annotation_file,
        image_root=image_root,
    )
    return info, {category_id: index for index, category_id in enumerate(ids)}


def read_image(image: Any, annotation_file: str, image_root: str | None) -> ImageRecord:
    """The record, without instances, of an entry of the json's images.

    Raises:
        AnnotationError: a malformed entry.
    """
    required = ("id", "height", "width") if image_root is None else ("id", "file_name", "height", "width")
    fault = missing(image, required)
    if fault is not None:
        raise AnnotationError(fault, "images without an id, a size or a file name")
    if not is_id(image["id"]):
        raise AnnotationError(f"its id must be an integer or a string, got {short(image['id'])}", "malformed ids")
    file_name = image.get("file_name")
    if image_root is None:
        file_name = file_name if isinstance(file_name, str) else ""
    elif not isinstance(file_name, str):
        raise AnnotationError(f"its file_name must be a string, got {short(file_name)}", "malformed file names")
    height, width = image["height"], image["width"]
    if not (is_size(height) and is_size(width)):
        raise AnnotationError(
            f"height and width are {short(height)} and {short(width)}; they must be integers of at least 1",
            "images without a valid height and width",
        )
    if height * width > MAX_PIXELS:
        raise AnnotationError(f"{short(width)} x {short(height)} pixels are too many for masks", "images too large")
    return ImageRecord(
        file_name=os.path.join(image_root or "", file_name),
        image_id=normal_id(image["id"]),
        height=int(height),
        width=int(width),
        annotation_file=annotation_file,
        video_id=read_id("video_id", image.get("video_id")),
        frame_index=_read_frame_index(image.get("frame_index")),
    )


def read_id(key: str, value: object) -> int | str | None:
    """An id of a video or a track, or None if it is absent or null.

    Raises:
        AnnotationError: it is neither an integer nor a string.
    """
    if value is None:
        return None
    if not is_id(value):
        raise AnnotationError(f"{key} must be an integer or a string, got {short(value)}", f"malformed {key}")
    return normal_id(value)


def _read_frame_index(value: object) -> int | None:
    if value is None:
        return None
    if not is_number_id(value) or value < 0:
        raise AnnotationError(f"frame_index must be an integer from 0 on, got {short(value)}", "malformed frame_index")
    return int(value)


def read_level(value: object) -> str | None:
    """OVIS' level of occlusion, a word, or None if it is absent or null.

    Raises:
        AnnotationError: it is not a string.
    """
    if value is None or isinstance(value, str):
        return value
    raise AnnotationError(f"occlusion must be a word, got {short(value)}", "occlusion not a word")


def read_flag(key: str, value: object) -> bool:
    """A flag as 0, 1, false or true, given as a number, a string or a bool; absent or null is False.

    Raises:
        AnnotationError: anything else.
    """
    if value is None:
        return False
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    raise AnnotationError(f"{key} must be 0, 1, false or true, got {short(value)}", f"{key} neither 0 nor 1")


def read_number(key: str, value: object, low: float = -math.inf, high: float = math.inf) -> float | None:
    """A finite number in a range, or None if it is absent or null.

    Raises:
        AnnotationError: anything else.
    """
    if value is None:
        return None
    if not is_finite(value):
        raise AnnotationError(f"{key} must be a finite number, got {short(value)}", f"{key} not a finite number")
    if not low <= value <= high:
        raise AnnotationError(f"{key} must be in {low}..{high}, got {short(value)}", f"{key} out of range")
    return value


def read_occluded(attributes: object) -> bool | None:
    """The annotator's flag ``occluded`` of an annotation's ``attributes``, as CVAT writes them; None without one.

    Other attributes are not read.

    Raises:
        AnnotationError: it is neither 0, 1, false nor true.
    """
    value = attributes.get("occluded") if isinstance(attributes, dict) else None
    return None if value is None else read_flag("occluded", value)


def check_box_numbers(key: str, box: Any) -> list[float]:
    """A box [x, y, width, height] of finite numbers with non-negative size, at any position.

    Raises:
        AnnotationError: anything else.
    """
    if not isinstance(box, list) or len(box) != 4 or not all(is_finite(value) for value in box):
        raise AnnotationError(
            f"{key} must be four finite numbers [x, y, width, height], got {short(box)}",
            f"{key} not four finite numbers",
        )
    if box[2] < 0 or box[3] < 0:
        raise AnnotationError(f"{key} has a negative size: {box}", f"{key} of negative size")
    return box


def read_box(key: str, box: Any, record: ImageRecord, findings: Findings, label: str) -> list[float]:
    """A box [x, y, width, height] of finite numbers, at least partly in its image; notes unusual boxes that are kept.

    Raises:
        AnnotationError: anything else.
    """
    x, y, width, height = check_box_numbers(key, box)
    if width == 0 or height == 0:
        findings.note("boxes of zero width or height, not trained on", label, f"{key} is {box}")
    elif x >= record.width or y >= record.height or x + width <= 0 or y + height <= 0:
        raise AnnotationError(
            f"{key} {box} lies outside its image {record.image_id!r} of {record.width} x {record.height} pixels",
            f"{key} outside the image",
        )
    elif x < -1 or y < -1 or x + width > record.width + 1 or y + height > record.height + 1:
        what = "boxes that extend more than a pixel beyond the image, clipped (is bbox x, y, width, height?)"
        findings.note(what, label, f"{key} is {box}")
    return box


class Mask(NamedTuple):
    """A validated segmentation.

    Attributes:
        segmentation: the json value, without dropped polygons.
        polygons: its polygons as float64 [2 * points]; empty for an RLE.
        extents: x0, y0, x1, y1 of the polygons or of the RLE's pixels; None for an RLE without pixels.
    """

    segmentation: list | dict
    polygons: list[np.ndarray]
    extents: tuple[float, float, float, float] | None


def read_mask(key: str, segmentation: object, record: ImageRecord, findings: Findings, label: str) -> Mask | None:
    """Validates a mask of an image; None if all its polygons were dropped.

    Polygons of fewer than 3 points or with an odd number of coordinates are dropped and noted (detectron2 drops
    them too).

    Raises:
        AnnotationError: it is neither a list of polygons nor an RLE of the image's size;
            the message starts with the key.
    """
    try:
        if isinstance(segmentation, dict):
            return _read_rle(key, segmentation, record)
        return _read_polygons(key, segmentation, record, findings, label)
    except SegmentationError as error:
        raise AnnotationError(f"{key}: {error}", f"{key}: {error.reason}") from error


def _read_polygons(key: str, segmentation: object, record: ImageRecord, findings: Findings, label: str) -> Mask | None:
    if not isinstance(segmentation, list) or not all(map(_is_flat_list, segmentation)):
        raise AnnotationError(
            f"{key} must be a list of polygons [[x0, y0, x1, y1, ...], ...] or an RLE, got {short(segmentation)}",
            f"{key} neither polygons nor RLE",
        )
    kept, arrays = [], []
    for polygon in segmentation:
        fault = polygon_fault(polygon)
        if fault is None:
            arrays.append(checked_polygon(polygon, record.height, record.width))
            kept.append(polygon)
        else:
            findings.note(f"polygons of {key} with {fault}, dropped", label, f"its length is {len(polygon)}")
    if not kept:
        return None
    xs, ys = ([polygon[axis::2] for polygon in kept] for axis in (0, 1))
    extents = min(map(min, xs)), min(map(min, ys)), max(map(max, xs)), max(map(max, ys))
    return Mask(kept, arrays, extents)


def _is_flat_list(polygon: object) -> bool:
    return isinstance(polygon, list) and (not polygon or isinstance(polygon[0], (int, float)))


def _read_rle(key: str, rle: dict, record: ImageRecord) -> Mask:
    if "counts" not in rle or "size" not in rle:
        keys = sorted(map(str, rle))
        raise AnnotationError(f"{key} is an RLE without size or counts: its keys are {short(keys)}", "incomplete RLEs")
    size = rle["size"]
    if not isinstance(size, (list, tuple)) or list(size) != [record.height, record.width]:
        raise AnnotationError(
            f"{key} is an RLE of size {short(size)}; its image {record.image_id!r} has height and width "
            f"{[record.height, record.width]}",
            "RLE of another size than the image",
        )
    rle = {"size": [record.height, record.width], "counts": rle["counts"]}
    x, y, width, height = coco_mask.toBbox(segmentation_to_rle(rle, record.height, record.width)).tolist()
    return Mask(rle, [], (x, y, x + width, y + height) if width and height else None)


def every_polygon_dropped(key: str, segmentation: list) -> AnnotationError:
    """The error for a mask without a usable polygon."""
    faults = dict.fromkeys(polygon_fault(polygon) for polygon in segmentation)
    kinds = " or ".join(fault for fault in faults if fault)
    return AnnotationError(
        f"every polygon has {kinds}: {key} is {short(segmentation)}", f"{key} of which every polygon has {kinds}"
    )


def mask_box(segmentation: list | dict, record: ImageRecord) -> list[float]:
    """The xywh box of the pixels of a mask; [0, 0, 0, 0] if it has none.

    Raises:
        SegmentationError: the segmentation is malformed.
    """
    return coco_mask.toBbox(segmentation_to_rle(segmentation, record.height, record.width)).tolist()


def extents_box(mask: Mask, record: ImageRecord) -> list[float]:
    """The xywh box of a mask's vertices or pixels, clipped to the image; [0, 0, 0, 0] of an RLE without pixels.

    Raises:
        AnnotationError: the mask lies outside the image.
    """
    if mask.extents is None:
        return [0.0, 0.0, 0.0, 0.0]
    x0, y0, x1, y1 = mask.extents
    clipped = max(x0, 0), max(y0, 0), min(x1, record.width), min(y1, record.height)
    if clipped[0] > clipped[2] or clipped[1] > clipped[3]:
        raise AnnotationError(
            f"its mask spans x {x0:g}..{x1:g} and y {y0:g}..{y1:g}, outside its image {record.image_id!r} of "
            f"{record.width} x {record.height} pixels",
            "masks outside the image",
        )
    return [clipped[0], clipped[1], clipped[2] - clipped[0], clipped[3] - clipped[1]]


def missing(entry: object, keys: tuple[str, ...]) -> str | None:
    """The error message if an entry is not an object or lacks one of these keys; otherwise None."""
    if not isinstance(entry, dict):
        return f"it must be an object with {', '.join(keys)}, got {short(entry)}"
    absent = [key for key in keys if entry.get(key) is None]
    return f"it has no {' and no '.join(absent)}" if absent else None


def is_id(value: object) -> TypeGuard[int | float | str]:
    """Whether a value is a string, or an integer of at most 64 bits (as int or float)."""
    if type(value) is int:  # the usual case
        return abs(value) < 2**63
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    return isinstance(value, str) or (abs(value) < 2**63 and value == int(value))


def is_number_id(value: object) -> TypeGuard[int | float]:
    """Whether a value is an integer of at most 64 bits (as int or float)."""
    return is_id(value) and not isinstance(value, str)


@overload
def normal_id(value: int | float) -> int: ...
@overload
def normal_id(value: int | float | str) -> int | str: ...
def normal_id(value: int | float | str) -> int | str:
    """An id, with integral floats as int. Strings are kept: "1" and 1 are different ids."""
    return int(value) if isinstance(value, float) else value


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is an int or float, but not NaN, infinite, a bool or beyond the range of floats."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def is_size(value: object) -> TypeGuard[float]:
    """Whether a value is an integer of at least 1 (as int or float)."""
    return is_finite(value) and value >= 1 and int(value) == value


def annotation_label(annotation: dict) -> str:
    """Label of an annotation in messages."""
    return f"annotation {short(annotation['id'])}"


def image_label(record: ImageRecord) -> str:
    """Label of an image in messages."""
    return f"image {short(record.image_id)}"


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
