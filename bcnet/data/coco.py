"""Reader of COCO's json: instances files, image-info files, and files converted by the occluder tool.

Category ids become classes 0..K-1 in the order of rising id, as in detectron2. Images come in the order
of their ids, annotations in the file's order. Four keys of an annotation are read that COCO's own files do
not have: ``bg_object_segmentation`` (the occluder mask), ``amodal_segmentation`` and ``amodal_bbox`` (the
whole object), and ``depth`` (the order in its image, smaller is nearer). What happens to what is not as it
should be:

=============================================  ===========================================================
what                                           what is done
=============================================  ===========================================================
the file is not JSON, or has no images or      ValueError
categories
image without id, file name or size; height    ValueError
or width below 1; two images of one id
annotation without id, bbox, image_id or       ValueError (a missing iscrowd is 0, as in COCO's API)
category_id; two annotations of one id
category_id not in the file's categories       ValueError
bbox or amodal_bbox not four finite numbers,   ValueError
or of negative size; depth not a number
bbox wholly outside the image                  ValueError
segmentation of another kind than polygons     ValueError
or RLE; polygon not a flat list of numbers;
RLE of another size than the image
every polygon has fewer than 3 points          ValueError (an occluder of such polygons is none)
some polygons have fewer than 3 points, or an  those polygons are dropped and counted (as detectron2 does)
odd count of numbers
annotation of an image that is not listed      dropped and counted (subsets of COCO are made so)
annotation with ``ignore``                     kept as a crowd and counted
bbox of zero width or height                   kept, counted; the mapper leaves it out of the targets
                                               (COCO's train2017 has two)
bbox partly outside the image                  kept; counted where it is by more than a pixel; the mapper
                                               clips it (as detectron2 does)
no segmentation, or an empty one               kept; training masks with it is a ValueError that names the
                                               annotation (detectors of boxes need none)
depth on some objects of an image only         its order is taken as unknown; counted
image without annotations, or crowds only      kept; the training loader drops it by
                                               ``DATALOADER.FILTER_EMPTY_ANNOTATIONS``
RLE whose runs do not fill the image, and      ValueError of the mapper, as it takes decoding; it names
other faults of a segmentation's content       the file and the annotation too
image file missing or unreadable, or of        the mapper's business (``INPUT.BAD_IMAGE``; another size is
another size than the file says                always an error)
=============================================  ===========================================================

All ValueErrors of one file come as one, which lists the first of them with id and value and says how many
there are. What is counted is logged in one warning per file. A crowd's segmentation is not read.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from numbers import Real

from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord

_logger = logging.getLogger(__name__)

_LISTED = 5  # faults that an error spells out
_MIN_NUMBERS = 6  # of a polygon: 3 points


def load_coco(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads a COCO json (see the module's text for what malformed content gets).

    Args:
        annotation_file: path of the json.
        image_root: folder that the images' file names start at.
        name: what to call the data set; the file's path by default.

    Returns:
        The images by rising id, with segmentations as in the json, and the data set's description.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: malformed content; names the file, and the ids and values of the first faults.
    """
    content = _read_json(annotation_file)
    faults: list[str] = []
    counts: Counter[str] = Counter()
    info, class_of = _read_categories(content, annotation_file, image_root, name)
    records = _read_images(content["images"], annotation_file, image_root, faults)
    depths: dict[int, list[float | None]] = {image_id: [] for image_id in records}
    seen: set = set()
    for position, annotation in enumerate(content.get("annotations") or []):
        label = f"annotation at position {position}"
        fault = _missing(annotation, ("id", "image_id"))
        if fault is None:
            label = f"annotation {annotation['id']!r}"
            if annotation["id"] in seen:
                fault = "its id is used twice"
            seen.add(annotation["id"])
        if fault is None:
            record = records.get(annotation["image_id"])
            if record is None:
                counts["annotations of images that are not listed, dropped"] += 1
                continue
            try:
                record.instances.append(_read_instance(annotation, record, class_of, counts))
                depths[record.image_id].append(_read_depth(annotation))
            except ValueError as error:
                fault = str(error)
        if fault is not None:
            faults.append(f"{label}: {fault}")
    if faults:
        listed = "\n  ".join(faults[:_LISTED])
        more = f"\n  and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise ValueError(f"{annotation_file} is malformed:\n  {listed}{more}")
    for image_id, record in records.items():
        record.in_front = _order(record, depths[image_id], counts)
    if counts:
        summary = "; ".join(f"{count} {what}" for what, count in counts.items())
        _logger.warning("%s: %s", annotation_file, summary)
    ordered = [records[i] for i in sorted(records, key=lambda i: (isinstance(i, str), i))]
    _logger.info("%d images, %d annotations read from %s", len(ordered), len(seen), annotation_file)
    return ordered, info


def _read_json(annotation_file: str) -> dict:
    with open(annotation_file, "rb") as file:
        try:
            content = json.load(file)
        except ValueError as error:  # JSONDecodeError, or bytes that are no text
            raise ValueError(f"{annotation_file} is not valid JSON (a truncated download?): {error}") from error
    for key in ("images", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
            raise ValueError(f"{annotation_file} is no COCO file: it has no list of {key}")
    return content


def _read_categories(
    content: dict, annotation_file: str, image_root: str, name: str
) -> tuple[DatasetInfo, dict[int, int]]:
    for category in content["categories"]:
        if _missing(category, ("id", "name")) or not isinstance(category["id"], int):
            raise ValueError(f"{annotation_file}: a category must have an integer id and a name, got {category}")
    categories = sorted(content["categories"], key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{annotation_file}: category ids are not unique: {ids}")
    info = DatasetInfo(
        name=name or annotation_file,
        class_names=tuple(category["name"] for category in categories),
        category_ids=tuple(ids),
        annotation_file=annotation_file,
        image_root=image_root,
    )
    return info, {category_id: index for index, category_id in enumerate(ids)}


def _read_images(images: list, annotation_file: str, image_root: str, faults: list[str]) -> dict[int, ImageRecord]:
    records: dict[int, ImageRecord] = {}
    for position, image in enumerate(images):
        label = f"image at position {position}"
        fault = _missing(image, ("id", "file_name", "height", "width"))
        if fault is None:
            label = f"image {image['id']!r}, {image['file_name']!r}"
        if fault is None and not (_is_size(image["height"]) and _is_size(image["width"])):
            fault = f"height and width are {image['height']!r} and {image['width']!r}; they must be at least 1"
        if fault is None and image["id"] in records:
            fault = f"its id is used twice, by {records[image['id']].file_name!r} too"
        if fault is not None:
            faults.append(f"{label}: {fault}")
            continue
        records[image["id"]] = ImageRecord(
            file_name=os.path.join(image_root, image["file_name"]),
            image_id=image["id"],
            height=int(image["height"]),
            width=int(image["width"]),
            annotation_file=annotation_file,
        )
    return records


def _read_instance(annotation: dict, record: ImageRecord, class_of: dict, counts: Counter) -> InstanceRecord:
    fault = _missing(annotation, ("bbox", "category_id"))
    if fault is not None:
        raise ValueError(fault)
    if annotation["category_id"] not in class_of:
        raise ValueError(f"category_id {annotation['category_id']!r} is not in the file's categories")
    _check_box(annotation["bbox"], record, counts)
    if annotation.get("ignore"):
        counts["annotations with 'ignore', kept as crowds"] += 1
    iscrowd = bool(annotation.get("iscrowd")) or bool(annotation.get("ignore"))
    instance = InstanceRecord(
        bbox=annotation["bbox"],
        category=class_of[annotation["category_id"]],
        iscrowd=iscrowd,
        segmentation=annotation.get("segmentation") or None,
        occluder=annotation.get("bg_object_segmentation"),
        amodal=annotation.get("amodal_segmentation") or None,
        amodal_bbox=annotation.get("amodal_bbox"),
        annotation_id=annotation["id"],
    )
    if iscrowd:
        return instance
    if instance.amodal_bbox is not None:
        _check_numbers("amodal_bbox", instance.amodal_bbox)
    if instance.segmentation is not None:
        instance.segmentation = _checked_mask("segmentation", instance.segmentation, record, counts)
    if instance.amodal is not None:
        instance.amodal = _checked_mask("amodal_segmentation", instance.amodal, record, counts)
    if instance.occluder:
        # The published converter writes contours of one or two points; its own reader drops them silently.
        instance.occluder = _checked("bg_object_segmentation", instance.occluder, record, counts)
    return instance


def _read_depth(annotation: dict) -> float | None:
    depth = annotation.get("depth")
    if depth is not None and not _is_finite(depth):
        raise ValueError(f"depth must be a finite number, got {_short(depth)}")
    return depth


def _order(record: ImageRecord, depths: list[float | None], counts: Counter) -> list[tuple[int, int]] | None:
    """`ImageRecord.in_front` of one depth per instance; None where they do not say the order."""
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    known = [i for i in objects if depths[i] is not None]
    if len(known) < len(objects):
        if known:
            counts["images in which some objects only have a depth, taken as of unknown order"] += 1
        return None
    return [(i, j) for i in known for j in known if depths[j] < depths[i]] if known else None


def _check_numbers(key: str, box: object) -> None:
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        raise ValueError(f"{key} must be four finite numbers [x, y, width, height], got {_short(box)}")
    if box[2] < 0 or box[3] < 0:
        raise ValueError(f"{key} has a negative size: {box}")


def _check_box(box: object, record: ImageRecord, counts: Counter) -> None:
    _check_numbers("bbox", box)
    x, y, width, height = box
    if width == 0 or height == 0:
        counts["boxes of zero width or height, not trained on"] += 1
    elif x >= record.width or y >= record.height or x + width <= 0 or y + height <= 0:
        raise ValueError(
            f"bbox {box} lies outside its image {record.image_id!r} of {record.width} x {record.height} pixels"
        )
    elif x < -1 or y < -1 or x + width > record.width + 1 or y + height > record.height + 1:
        counts["boxes that reach out of the image by more than a pixel, clipped (is bbox x, y, width, height?)"] += 1


def _checked_mask(key: str, segmentation: object, record: ImageRecord, counts: Counter) -> list | dict:
    checked = _checked(key, segmentation, record, counts)
    if not checked:
        raise ValueError(f"every polygon has fewer than 3 points: {key} is {_short(segmentation)}")
    return checked


def _checked(key: str, segmentation: object, record: ImageRecord, counts: Counter) -> list | dict:
    """The segmentation without polygons of fewer than 3 points; ValueError where it is of a wrong form."""
    if isinstance(segmentation, dict):
        if "counts" not in segmentation or "size" not in segmentation:
            raise ValueError(f"{key} is an RLE without size or counts: its keys are {sorted(segmentation)}")
        if list(segmentation["size"]) != [record.height, record.width]:
            raise ValueError(
                f"{key} is an RLE of size {segmentation['size']}; its image {record.image_id!r} has height and "
                f"width {[record.height, record.width]}"
            )
        return segmentation
    if not isinstance(segmentation, list):
        raise ValueError(f"{key} must be a list of polygons or an RLE, got {_short(segmentation)}")
    for polygon in segmentation:
        if not isinstance(polygon, list) or (polygon and not isinstance(polygon[0], Real)):
            raise ValueError(
                f"{key} must be a list of polygons [x0, y0, x1, y1, ...] or an RLE, got {_short(segmentation)}"
            )
    kept = [polygon for polygon in segmentation if len(polygon) >= _MIN_NUMBERS and len(polygon) % 2 == 0]
    if len(kept) < len(segmentation):
        counts[f"polygons of {key} with fewer than 3 points or an odd count of numbers, dropped"] += len(
            segmentation
        ) - len(kept)
    return kept


def _missing(entry: dict, keys: tuple[str, ...]) -> str | None:
    if not isinstance(entry, dict):
        return f"it must be an object with {', '.join(keys)}, got {_short(entry)}"
    missing = [key for key in keys if entry.get(key) is None]
    return f"it has no {' and no '.join(missing)}" if missing else None


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _is_size(value: object) -> bool:
    return _is_finite(value) and value >= 1 and int(value) == value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
