"""What the readers of annotation files share: checks of json values, and the one error that names all faults.

Checks raise ValueError with the actual value; the reader adds the file and the id.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from numbers import Real

from pycocotools import mask as coco_mask

from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json
from bcnet.ops.rle import segmentation_to_rle

_LISTED = 5  # faults that an error spells out
_MIN_NUMBERS = 6  # of a polygon: 3 points


class Faults:
    """Faults of one file, raised together."""

    def __init__(self, annotation_file: str) -> None:
        self._annotation_file = annotation_file
        self._messages: list[str] = []

    def add(self, label: str, message: str) -> None:
        self._messages.append(f"{label}: {message}")

    def raise_if_any(self) -> None:
        """
        Raises:
            ValueError: naming the file, with the first faults and the count of the others.
        """
        if not self._messages:
            return
        listed = "\n  ".join(self._messages[:_LISTED])
        more = f"\n  and {len(self._messages) - _LISTED} more" if len(self._messages) > _LISTED else ""
        raise ValueError(f"{self._annotation_file} is malformed:\n  {listed}{more}")


def read_coco_json(path: str) -> dict:
    """The content of a json file with lists of images and categories, neither of them empty.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file; names it.
    """
    content = read_json(path)
    for key in ("images", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
            raise ValueError(f"{path} is no COCO file: it has no list of {key}")
    return content


def read_categories(
    categories: list, annotation_file: str, image_root: str, name: str
) -> tuple[DatasetInfo, dict[int, int]]:
    """The data set's description, classes by rising id, and the class 0..K-1 of each category id.

    Raises:
        ValueError: a category without an integer id and a name, or two of one id; names the file.
    """
    for category in categories:
        if (
            missing(category, ("id", "name"))
            or type(category["id"]) is not int
            or not isinstance(category["name"], str)
        ):
            raise ValueError(f"{annotation_file}: a category must have an integer id and a name, got {short(category)}")
    ordered = sorted(categories, key=lambda category: category["id"])
    ids = [category["id"] for category in ordered]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{annotation_file}: category ids are not unique: {short(ids)}")
    info = DatasetInfo(
        name=name or annotation_file,
        class_names=tuple(category["name"] for category in ordered),
        category_ids=tuple(ids),
        annotation_file=annotation_file,
        image_root=image_root,
    )
    return info, {category_id: index for index, category_id in enumerate(ids)}


def read_images(images: list, annotation_file: str, image_root: str, faults: Faults) -> dict[int | str, ImageRecord]:
    """Records without instances by image id, in the file's order; what is malformed goes to the faults."""
    records: dict[int | str, ImageRecord] = {}
    for position, image in enumerate(images):
        label = f"image at position {position}"
        fault = missing(image, ("id", "file_name", "height", "width"))
        if fault is None:
            label = f"image {short(image['id'])}, {short(image['file_name'])}"
            if not is_id(image["id"]) or not isinstance(image["file_name"], str):
                fault = "its id must be a whole number or a text, its file_name a text"
            elif not (is_size(image["height"]) and is_size(image["width"])):
                sizes = f"{short(image['height'])} and {short(image['width'])}"
                fault = f"height and width are {sizes}; they must be at least 1"
            elif image["id"] in records:
                fault = f"its id is used twice, by {records[image['id']].file_name!r} too"
        if fault is not None:
            faults.add(label, fault)
            continue
        records[image["id"]] = ImageRecord(
            file_name=os.path.join(image_root, image["file_name"]),
            image_id=image["id"],
            height=int(image["height"]),
            width=int(image["width"]),
            annotation_file=annotation_file,
        )
    return records


def check_numbers(key: str, box: object) -> None:
    """Raises ValueError unless a box is [x, y, width, height] of finite numbers, without a negative size."""
    if not isinstance(box, list) or len(box) != 4 or not all(is_finite(value) for value in box):
        raise ValueError(f"{key} must be four finite numbers [x, y, width, height], got {short(box)}")
    if box[2] < 0 or box[3] < 0:
        raise ValueError(f"{key} has a negative size: {box}")


def check_box(key: str, box: object, record: ImageRecord, counts: Counter) -> None:
    """`check_numbers`, and ValueError for a box wholly outside its image; counts what is odd but kept."""
    check_numbers(key, box)
    x, y, width, height = box
    if width == 0 or height == 0:
        counts["boxes of zero width or height, not trained on"] += 1
    elif x >= record.width or y >= record.height or x + width <= 0 or y + height <= 0:
        raise ValueError(
            f"{key} {box} lies outside its image {record.image_id!r} of {record.width} x {record.height} pixels"
        )
    elif x < -1 or y < -1 or x + width > record.width + 1 or y + height > record.height + 1:
        counts["boxes that reach out of the image by more than a pixel, clipped (is bbox x, y, width, height?)"] += 1


def checked_mask(key: str, segmentation: object, record: ImageRecord, counts: Counter) -> list | dict:
    """As `without_short_polygons`, and ValueError where nothing is left."""
    checked = without_short_polygons(key, segmentation, record, counts)
    if not checked:
        raise ValueError(f"every polygon has fewer than 3 points: {key} is {short(segmentation)}")
    return checked


def without_short_polygons(key: str, segmentation: object, record: ImageRecord, counts: Counter) -> list | dict:
    """A segmentation without polygons of fewer than 3 points or an odd count of numbers, which are counted.

    Raises:
        ValueError: it is neither a list of polygons nor an RLE of the image's size.
    """
    if isinstance(segmentation, dict):
        if "counts" not in segmentation or "size" not in segmentation:
            raise ValueError(f"{key} is an RLE without size or counts: its keys are {sorted(map(str, segmentation))}")
        if segmentation["size"] != [record.height, record.width]:
            raise ValueError(
                f"{key} is an RLE of size {short(segmentation['size'])}; its image {record.image_id!r} has height and "
                f"width {[record.height, record.width]}"
            )
        return segmentation
    if not isinstance(segmentation, list):
        raise ValueError(f"{key} must be a list of polygons or an RLE, got {short(segmentation)}")
    for polygon in segmentation:
        if not isinstance(polygon, list) or (polygon and not isinstance(polygon[0], Real)):
            raise ValueError(
                f"{key} must be a list of polygons [x0, y0, x1, y1, ...] or an RLE, got {short(segmentation)}"
            )
    kept = [polygon for polygon in segmentation if len(polygon) >= _MIN_NUMBERS and len(polygon) % 2 == 0]
    if len(kept) < len(segmentation):
        counts[f"polygons of {key} with fewer than 3 points or an odd count of numbers, dropped"] += len(
            segmentation
        ) - len(kept)
    return kept


def mask_box(segmentation: list | dict, record: ImageRecord) -> list[float]:
    """The xywh box of the pixels of a mask; [0, 0, 0, 0] where there are none.

    Raises:
        ValueError: the segmentation is malformed.
    """
    return coco_mask.toBbox(segmentation_to_rle(segmentation, record.height, record.width)).tolist()


def missing(entry: object, keys: tuple[str, ...]) -> str | None:
    """What is wrong if an entry is no object, or has not got all of these keys."""
    if not isinstance(entry, dict):
        return f"it must be an object with {', '.join(keys)}, got {short(entry)}"
    absent = [key for key in keys if entry.get(key) is None]
    return f"it has no {' and no '.join(absent)}" if absent else None


def is_id(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


def is_size(value: object) -> bool:
    return is_finite(value) and value >= 1 and int(value) == value


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
