"""Reader of labelme's json files, one per image (https://github.com/wkentaro/labelme).

==============================  ========================================================================================
what                            what is read
==============================  ========================================================================================
``shapes``                      polygons, rectangles, circles and masks, each an object
``group_id``                    shapes of one label and one group are one object
oriented rectangles             shape types ``oriented_rectangle`` and ``rotation`` (X-AnyLabeling): polygons
points, lines, line strips      no areas: dropped, counted
labels ``__ignore__``,          dropped, counted, as labelme's own converters do
``_background_``
``flags`` of a shape            the flag ``occluded``
``imagePath``                   from the json's folder, also with backslashes; else the image beside the json
``imageHeight``, ``imageWidth`` after the EXIF orientation, as labelme shows the image; missing ones are the image's
images without a json           left out, counted
classes                         lines of a file ``labels.txt`` in the folder or the one above, as labelme's ``--labels``
                                takes it; else the labels that occur, in alphabetical order
order of the shapes             not a depth order, but for the format ``labelme_ordered``: there later shapes, which
                                labelme paints over the others, lie in front
==============================  ========================================================================================
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from bcnet.data.coco_json import missing, short
from bcnet.data.findings import AnnotationError
from bcnet.data.images import IMAGE_SUFFIXES
from bcnet.data.importers.content import ContentBuilder, files_below, relative_name
from bcnet.data.importers.geometry import ellipse, flat_points, joined, rectangle, window_rle
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json
from bcnet.ops.rle import RLE

IGNORED_LABEL = "__ignore__"
BACKGROUND_LABEL = "_background_"
_POLYGONS = ("polygon", "oriented_rectangle", "rotation")
_NO_AREA = ("point", "points", "line", "linestrip")


def load_labelme(
    folder: str, image_root: str | None = None, name: str = "", *, ordered: bool = False
) -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads the labelme files of a folder and its subfolders (see the module's text).

    Args:
        folder: with the json files.
        image_root: folder that is searched for the images, by the jsons' places in `folder` or by name alone; None
            takes where the jsons say.
        name: what to call the data set; the folder by default.
        ordered: later shapes lie in front of earlier ones.

    Raises:
        ValueError: malformed content, or no json files; names the file, the shape and the value.
    """
    files = files_below(folder, (".json",))
    if not files:
        raise ValueError(f"{folder} has no json files of labelme")
    builder = ContentBuilder(folder, image_root or folder, _listed_classes(folder))
    places = _ImagePlaces(folder, image_root)
    for path in files:
        label = relative_name(path, folder)
        try:
            _add_file(builder, path, label, places, ordered)
        except ValueError as error:
            builder.file_fault(label, error)
    _note_other_files(builder, places)
    return builder.read(name)


def _note_other_files(builder: ContentBuilder, places: _ImagePlaces) -> None:
    """Counts images without a json, and jsons in another image folder."""
    for path in files_below(builder.image_root, IMAGE_SUFFIXES):
        if os.path.normpath(path) not in places.used:
            builder.findings.drop("images without a json, left out", relative_name(path, builder.image_root))
    own = os.path.realpath(builder.source)
    for path in files_below(builder.image_root, (".json",)):
        if not os.path.realpath(path).startswith(own + os.sep):
            builder.findings.note("json files in the image folder, not read", relative_name(path, builder.image_root))


def load_labelme_ordered(
    folder: str, image_root: str | None = None, name: str = ""
) -> tuple[list[ImageRecord], DatasetInfo]:
    """`load_labelme` of files in which later shapes lie in front of earlier ones."""
    return load_labelme(folder, image_root, name, ordered=True)


def _listed_classes(folder: str) -> list[str] | None:
    for parent in (folder, os.path.dirname(os.path.abspath(folder))):
        path = os.path.join(parent, "labels.txt")
        if os.path.isfile(path):
            with open(path, encoding="utf-8-sig") as file:
                lines = (line.strip() for line in file)
                return [line for line in lines if line and line not in (IGNORED_LABEL, BACKGROUND_LABEL)]
    return None


class _ImagePlaces:
    """Where the images are."""

    def __init__(self, folder: str, image_root: str | None) -> None:
        self._folder = folder
        self._root = image_root
        self.used: dict[str, str] = {}  # by the image's path the json

    def find(self, json_path: str, image_path: object) -> tuple[str, bool]:
        """Path of the image from the image root, and whether there is such a file."""
        named = image_path.replace("\\", "/") if isinstance(image_path, str) else ""
        beside = os.path.dirname(json_path)
        stem = os.path.splitext(os.path.basename(json_path))[0]
        base = os.path.basename(named)
        if self._root is not None:
            inside = os.path.join(self._root, os.path.relpath(beside, self._folder))
            candidates = [os.path.join(parent, base) for parent in (inside, self._root)]
            parents = (inside, self._root)
        else:
            candidates = [os.path.join(beside, named), os.path.join(beside, base)]
            parents = (beside,)
        candidates = [path for path in candidates if base]
        candidates += [os.path.join(parent, stem + suffix) for parent in parents for suffix in IMAGE_SUFFIXES]
        found = next(filter(os.path.isfile, candidates), None)
        return os.path.relpath(found or candidates[0], self._root or self._folder), found is not None


def _add_file(builder: ContentBuilder, path: str, label: str, places: _ImagePlaces, ordered: bool) -> None:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ValueError("it is not a file of labelme: it has no list of shapes")
    file_name, exists = places.find(path, content.get("imagePath"))
    if not exists:
        embedded = "; its pixels are in the json (imageData)" if content.get("imageData") else ""
        builder.findings.note("images that were not found", label, f"{file_name}{embedded}")
    full = os.path.normpath(os.path.join(builder.image_root, file_name))
    if full in places.used:
        message = f"its image {file_name!r} is that of {places.used[full]} too"
        raise AnnotationError(message, "images with two jsons")
    places.used[full] = label
    image = builder.add_image(file_name, content.get("imageHeight"), content.get("imageWidth"))
    for shapes in _groups(builder, content["shapes"], label):
        numbers, first = [number for number, _ in shapes], shapes[0][1]
        where = f"{label} shape {'+'.join(map(str, numbers))}"
        try:
            parts = [_part(shape, image) for _, shape in shapes]
            builder.add(
                where,
                image,
                first["label"],
                joined(parts, image.height, image.width),
                depth=-numbers[-1] if ordered else None,
                attributes=_attributes(first),
            )
        except ValueError as error:
            builder.fault(where, error)


def _groups(builder: ContentBuilder, shapes: list, label: str) -> list[list[tuple[int, dict]]]:
    """The shapes of each object, with their numbers from 1; what has no area goes to the findings."""
    groups: dict[Any, list[tuple[int, dict]]] = {}
    for number, shape in enumerate(shapes, start=1):
        where = f"{label} shape {number}"
        fault = missing(shape, ("label", "points"))
        if fault is not None or not isinstance(shape["label"], str):
            message = fault or f"its label must be a text, got {short(shape['label'])}"
            builder.fault(where, AnnotationError(message, "shapes without a label or points"))
            continue
        if shape["label"] in (IGNORED_LABEL, BACKGROUND_LABEL):
            builder.findings.drop(f"shapes of the label {shape['label']}, dropped", where)
            continue
        kind = shape.get("shape_type") or "polygon"
        if kind in _NO_AREA:
            builder.findings.drop("points and lines, which have no area, dropped", where, kind)
            continue
        group = shape.get("group_id")
        key = (shape["label"], str(group)) if group is not None else number
        groups.setdefault(key, []).append((number, shape))
    return list(groups.values())


def _part(shape: Mapping[str, Any], image: ImageRecord) -> list[float] | RLE:
    """The polygon or RLE of a shape."""
    kind = shape.get("shape_type") or "polygon"
    points = flat_points(shape["points"])
    if kind in _POLYGONS:
        return points
    if kind == "mask":
        return _mask(shape, points, image)
    if kind == "rectangle" and len(points) == 8:  # an oriented one
        return points
    if kind not in ("rectangle", "circle"):
        raise AnnotationError(
            f"its shape_type is {short(kind)}; known are {', '.join(_POLYGONS)}, rectangle, circle, mask, "
            f"{', '.join(_NO_AREA)}",
            "shapes of an unknown shape_type",
        )
    if len(points) != 4:
        raise AnnotationError(f"a {kind} has two points, got {short(shape['points'])}", f"{kind}s without two points")
    if kind == "rectangle":
        return rectangle(points[0], points[1], points[2], points[3])
    radius = math.hypot(points[2] - points[0], points[3] - points[1])
    return ellipse(points[0], points[1], radius, radius)


def _mask(shape: Mapping[str, Any], points: list[float], image: ImageRecord) -> RLE:
    """The RLE of a mask: a PNG in base64 of the pixels from the first point to the second, both inclusive."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.get("mask") or "", validate=True))) as picture:
            mask = np.asarray(picture.convert("L")) > 0
    except UnidentifiedImageError as error:
        message = "its mask is not a PNG in base64: it decodes to no image"
        raise AnnotationError(message, "masks that cannot be decoded") from error
    except (binascii.Error, OSError, ValueError, TypeError) as error:
        raise AnnotationError(f"its mask is not a PNG in base64: {error}", "masks that cannot be decoded") from error
    if len(points) != 4:
        raise AnnotationError(f"a mask has two points, got {short(shape['points'])}", "masks without two points")
    x0, y0 = round(points[0]), round(points[1])
    expected = (round(points[3]) - y0 + 1, round(points[2]) - x0 + 1)
    if mask.shape != expected:
        raise AnnotationError(
            f"its mask is {mask.shape[1]} x {mask.shape[0]} pixels, its points {short(shape['points'])} span "
            f"{expected[1]} x {expected[0]}",
            "masks of another size than their points",
        )
    return window_rle(mask, x0, y0, image.height, image.width)


def _attributes(shape: Mapping[str, Any]) -> dict | None:
    flags = shape.get("flags")
    return {"occluded": flags["occluded"]} if isinstance(flags, dict) and "occluded" in flags else None
