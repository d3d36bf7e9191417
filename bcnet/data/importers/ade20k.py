"""Reader of the full ADE20K, release 2021_17_01 (https://github.com/CSAILVision/ADE20K): a json beside each image.

==========================  ============================================================================================
key of an object            what is read
==========================  ============================================================================================
``name``, ``name_ndx``      the class; its id is ``name_ndx``
``instance_mask``           a PNG: 255 are visible pixels, 128 hidden ones; both are the amodal mask
``polygon``                 the mask, where the PNG is absent: the whole object, whose hidden part is not known
``occluded``                "yes" or "no": the flag ``occluded``; an empty list says nothing
``parts``                   objects that are parts of others (``part_level`` above 0) are dropped, counted
``depth_ordering_rank``     not read, see below
==========================  ============================================================================================

Order: an object lies in front of another where its visible pixels are hidden pixels of the other. The
``depth_ordering_rank`` is the object's number plus one in the two images of the data set's repository, and no order of
depth: of 136 pairs of objects with more than 100 such pixels, the one in front had the smaller rank in 49.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from bcnet.data.coco_json import is_finite, is_number_id, missing, short
from bcnet.data.findings import AnnotationError
from bcnet.data.importers.content import ContentBuilder, files_below, relative_name
from bcnet.data.importers.geometry import window_rle
from bcnet.data.importers.hidden_pixels import HIDDEN_PIXELS
from bcnet.data.importers.label_files import read_label_pages
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import parse_json

_VISIBLE = 255
_OCCLUDED = {"yes": True, "no": False}


def load_ade20k(folder: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads the jsons of a folder and its subfolders (see the module's text).

    Args:
        folder: such as ``images/ADE/training``.
        name: what to call the data set; the folder by default.

    Raises:
        ValueError: no json files, or malformed content; names the file, the object and the value.
    """
    files = files_below(folder, (".json",))
    if not files:
        raise ValueError(f"{folder} has no json files of ADE20K")
    names: dict[int, str] = {}
    builder = ContentBuilder(folder, folder, names)
    for path in files:
        label = relative_name(path, folder)
        try:
            _add_file(builder, names, path, label)
        except ValueError as error:
            builder.file_fault(label, error)
    return builder.read(name, format=HIDDEN_PIXELS)


def _read(path: str) -> dict:
    """The annotation of a json, which is in Latin-1 in the release."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        parsed = parse_json(content, path)
    except ValueError:
        parsed = json.loads(content.decode("latin-1"))
    annotation: Any = parsed.get("annotation") if isinstance(parsed, dict) else None
    fault = missing(annotation, ("filename", "imsize", "object"))
    if fault is None and not isinstance(annotation["object"], list):
        fault = f"its objects must be a list, got {short(annotation['object'])}"
    if fault is not None:
        raise ValueError(f"it is not a json of ADE20K: {fault}")
    return annotation


def _add_file(builder: ContentBuilder, names: dict[int, str], path: str, label: str) -> None:
    annotation = _read(path)
    size = annotation["imsize"]
    height, width = size[:2] if isinstance(size, list) and len(size) > 1 else (size, size)
    beside = os.path.dirname(path)
    image = builder.add_image(
        relative_name(os.path.join(beside, str(annotation["filename"])), builder.image_root), height, width
    )
    for number, entry in enumerate(annotation["object"]):
        where = f"{label} object {number}"
        try:
            fault = missing(entry, ("name", "name_ndx"))
            if fault is not None or not is_number_id(entry["name_ndx"]):
                raise AnnotationError(fault or "its name_ndx must be a whole number", "objects without a class")
            parts = entry.get("parts")
            if isinstance(parts, dict) and parts.get("part_level"):
                builder.findings.drop("parts of other objects, dropped", where)
                continue
            masks = _masks(entry, beside, image)
            names.setdefault(int(entry["name_ndx"]), str(entry["name"]))
            flag = entry.get("occluded")
            occluded = _OCCLUDED.get(flag.lower()) if isinstance(flag, str) else None
            builder.add(
                where,
                image,
                int(entry["name_ndx"]),
                attributes=None if occluded is None else {"occluded": occluded},
                **masks,
            )
        except ValueError as error:
            builder.fault(where, error)


def _masks(entry: Mapping[str, Any], beside: str, image: ImageRecord) -> dict[str, Any]:
    file_name = entry.get("instance_mask")
    path = os.path.join(beside, file_name) if isinstance(file_name, str) else ""
    if not os.path.isfile(path):
        return {"segmentation": [_polygon(entry.get("polygon"))]}
    values = read_label_pages(path)[0]
    if values.shape != (image.height, image.width):
        raise AnnotationError(
            f"{path} is {values.shape[1]} x {values.shape[0]} pixels, its image {image.width} x {image.height}",
            "masks of another size than the image",
        )
    visible, amodal = (np.asarray(mask, dtype=np.uint8) for mask in (values == _VISIBLE, values > 0))
    return {
        key: window_rle(mask, 0, 0, image.height, image.width)
        for key, mask in (("segmentation", visible), ("amodal_segmentation", amodal))
    }


def _polygon(polygon: object) -> list[float]:
    xs, ys = (polygon.get("x"), polygon.get("y")) if isinstance(polygon, dict) else (None, None)
    if not (isinstance(xs, list) and isinstance(ys, list)) or len(xs) != len(ys) or not all(map(is_finite, [*xs, *ys])):
        raise AnnotationError(f"polygon must have lists x and y of one length, got {short(polygon)}", "no polygon")
    return [value for point in zip(xs, ys, strict=True) for value in point]
