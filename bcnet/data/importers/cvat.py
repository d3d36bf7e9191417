"""Reader of "CVAT for images 1.1", the XML of CVAT (https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/).

==========================  ============================================================================================
what                        what is read
==========================  ============================================================================================
``polygon``, ``ellipse``    masks; elements of one ``group_id`` and label are one object, as in CVAT's COCO export
``mask``                    its run lengths, along the rows of its box, the first of zeros
``box``                     an object without a mask; of a rotated one the box around it
``z_order``                 the depth order, higher is nearer; shapes of one z_order (0 is the default) that overlap are
                            of unknown order; an image whose shapes share one has no known order
``occluded``                the flag ``occluded``
``points``, ``polyline``,   dropped, counted
``cuboid``, ``skeleton``,
``tag``
classes                     the labels of ``meta``, in their order; else the labels that occur
images                      beside the XML in ``images``, or beside the XML; in the folder of their ``subset``, as CVAT
                            exports projects, where there is such a file
==========================  ============================================================================================

Shapes stay whole where others lie on them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from bcnet.data.coco_json import short
from bcnet.data.findings import AnnotationError, Findings
from bcnet.data.importers.content import DERIVED_BOXES, ContentBuilder, relative_name
from bcnet.data.importers.geometry import ellipse, joined, window_rle
from bcnet.data.order import Pairs, annotated_order
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.data.source_masks import overlapping_pairs
from bcnet.ops.rle import MAX_PIXELS, RLE

_MASKS = ("polygon", "ellipse", "mask")
_DROPPED = ("points", "polyline", "cuboid", "skeleton", "tag")


def load_cvat(path: str, image_root: str | None = None, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads a file of CVAT for images (see the module's text).

    Args:
        path: of the XML, or of the folder with ``annotations.xml``.
        image_root: folder that the images' names start at; None searches beside the XML.
        name: what to call the data set; the file's path by default.

    Raises:
        FileNotFoundError: the folder has no ``annotations.xml``.
        ValueError: malformed content; names the file, the image and the shape.
    """
    if os.path.isdir(path):
        path = os.path.join(path, "annotations.xml")
    root = _parse(path)
    elements = root.findall("image")
    if image_root is None:
        image_root = _image_folder(os.path.dirname(path), elements)
    labels = [label.text.strip() for label in root.iterfind("meta//labels/label/name") if label.text]
    builder = ContentBuilder(path, image_root, list(dict.fromkeys(labels)) or None)
    seen: dict[str, str] = {}
    for element in elements:
        try:
            _add_image(builder, element, seen)
        except ValueError as error:
            builder.file_fault(f"image {short(element.get('name') or 'of id ' + str(element.get('id')))}", error)
    return builder.read(name, format=replace(DERIVED_BOXES, order=_order))


def _order(record: ImageRecord, annotations: Sequence[dict], findings: Findings) -> Pairs | None:
    """The order by depth, in which objects of one depth that overlap are of unknown order."""
    pairs = annotated_order(record, annotations, findings)
    depths = [annotation.get("depth") for annotation in annotations]
    if pairs is not None:
        record.unordered_pairs = tuple((i, j) for i, j in overlapping_pairs(record) if depths[i] == depths[j])
    return pairs


def _parse(path: str) -> Element:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not XML: {error}") from error
    if root.tag != "annotations":
        raise ValueError(f"{path} is not a file of CVAT: its root is <{root.tag}>, not <annotations>")
    if root.find("track") is not None and root.find("image") is None:
        raise ValueError(f"{path} is of CVAT for video (it has tracks): export it as CVAT for images")
    return root


def _image_folder(beside: str, elements: Sequence[Element]) -> str:
    folders = [os.path.join(beside, "images"), beside]
    return max(folders, key=lambda folder: sum(os.path.isfile(_path(element, folder)) for element in elements))


def _path(element: Element, folder: str) -> str:
    """Path of an image in an image folder: in the folder of its subset, if it is there."""
    name, subset = element.get("name", ""), element.get("subset")
    inside = os.path.join(folder, subset, name) if subset else ""
    return inside if os.path.isfile(inside) else os.path.join(folder, name)


def _add_image(builder: ContentBuilder, element: Element, seen: dict[str, str]) -> None:
    """Adds an image; `seen` has the images so far, by their names what tells them apart."""
    if not element.get("name"):
        raise AnnotationError("an image must have a name, it has none", "images without a name")
    file_name = relative_name(_path(element, builder.image_root or "."), builder.image_root or ".")
    this = ", ".join(f"{key} {element.get(key)}" for key in ("id", "subset", "task_id") if element.get(key))
    if file_name in seen:
        message = f"two images have the name {short(file_name)}: one of {seen[file_name]}, one of {this}"
        raise AnnotationError(f"{message}; export the tasks or subsets one by one", "image names that are used twice")
    seen[file_name] = this
    sides = [_number(element, side) if element.get(side) else None for side in ("height", "width")]
    image = builder.add_image(file_name, *sides)
    objects = _objects(builder, element, file_name)
    z_orders = {key: max(_number(shape, "z_order", 0) for _, shape in shapes) for key, shapes in objects.items()}
    is_ordered = len(set(z_orders.values())) > 1
    for key, shapes in objects.items():
        first = shapes[0][1]
        where = f"{file_name} shape {'+'.join(str(number) for number, _ in shapes)}"
        more = {
            "depth": -z_orders[key] if is_ordered else None,
            "attributes": {"occluded": first.get("occluded")} if first.get("occluded") is not None else None,
        }
        try:
            parts = [_part(shape, image) for _, shape in shapes if shape.tag != "box"]
            if 0 < len(parts) < len(shapes):
                builder.findings.drop("boxes in a group with masks, dropped", where)
            if parts:
                builder.add(where, image, first.get("label"), joined(parts, image.height, image.width), **more)
            else:
                builder.add(where, image, first.get("label"), bbox=_box(first), **more)
        except ValueError as error:
            builder.fault(where, error)


def _objects(builder: ContentBuilder, element: Element, file_name: str) -> dict[object, list[tuple[int, Element]]]:
    """The shapes of each object, with their numbers from 1; what has no area goes to the findings."""
    objects: dict[object, list[tuple[int, Element]]] = {}
    for number, shape in enumerate(element, start=1):
        where = f"{file_name} shape {number}"
        if shape.tag in _DROPPED:
            builder.findings.drop("points, lines, cuboids, skeletons and tags, dropped", where, shape.tag)
        elif shape.tag != "box" and shape.tag not in _MASKS:
            builder.findings.drop("shapes of an unknown kind, dropped", where, shape.tag)
        else:
            group = shape.get("group_id") or "0"
            key = number if group == "0" else (shape.get("label"), group)
            objects.setdefault(key, []).append((number, shape))
    return objects


def _number(element: Element, key: str, default: float | None = None) -> float:
    """An attribute as a whole number, where it is one, or a float."""
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AnnotationError(f"{key} of a {element.tag} must be a number, got {short(text)}", f"malformed {key}")
    return int(value) if value.is_integer() else value


def _numbers(element: Element, *keys: str) -> list[float]:
    return [_number(element, key) for key in keys]


def _part(shape: Element, image: ImageRecord) -> list[float] | RLE:
    if shape.tag == "polygon":
        return _points(shape)
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = _numbers(shape, "cx", "cy", "rx", "ry")
        return ellipse(x, y, radius_x, radius_y, _number(shape, "rotation", 0))
    return _mask(shape, image)


def _points(shape: Element) -> list[float]:
    text = shape.get("points") or ""
    try:
        points = [float(value) for pair in text.split(";") if pair for value in pair.split(",", 1)]
    except ValueError as error:
        raise AnnotationError(f"points must be x,y;x,y;..., got {short(text)}", "malformed points") from error
    return points


def _mask(shape: Element, image: ImageRecord) -> RLE:
    left, top, width, height = map(int, _numbers(shape, "left", "top", "width", "height"))
    if not (0 < width <= MAX_PIXELS and 0 < height and width * height <= MAX_PIXELS):
        raise AnnotationError(f"its box has {width} x {height} pixels", "masks of an impossible size")
    text = shape.get("rle") or ""
    try:
        runs = np.array([int(run) for run in text.split(",")], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise AnnotationError(f"its rle must be whole numbers, got {short(text)}", "malformed rle") from error
    if runs.min() < 0:
        raise AnnotationError(f"a run of its rle is negative: {runs.min()}", "rle with negative runs")
    if runs.sum() != width * height:
        raise AnnotationError(
            f"the runs of its rle sum to {runs.sum()}, its box has {width} x {height} pixels",
            "rle that does not fill its box",
        )
    pixels = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    return window_rle(pixels.astype(np.uint8), left, top, image.height, image.width)


def _box(shape: Element) -> list[float]:
    """xywh around the box, which is turned clockwise about its centre."""
    x0, y0, x1, y1 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    turn = math.radians(_number(shape, "rotation", 0))
    width, height = x1 - x0, y1 - y0
    if turn:
        cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
        centre = (x0 + x1) / 2, (y0 + y1) / 2
        width, height = width * cos + height * sin, width * sin + height * cos
        x0, y0 = centre[0] - width / 2, centre[1] - height / 2
    return [x0, y0, width, height]
