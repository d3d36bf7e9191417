"""Reader of Pascal VOC's segmentations (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/; the text of its devkit).

===============================  =======================================================================================
file                             what is read
===============================  =======================================================================================
``SegmentationObject/a.png``     the objects of image a, by the indices 1, 2, ... of its palette; 0 is background,
                                 and 255 is void, which belongs to no object
``SegmentationClass/a.png``      the class of an object: the index that most of its pixels have
``labelmap.txt``                 CVAT's names and colours of the classes, the first is background; its exports are in
                                 colour: classes by these colours, objects by those of VOC's palette
``class_names.txt``,             names of the classes, one a line (labelme); the first is class 1, or background by its
``labels.txt``                   name. Without any of the three, the 20 classes are VOC's
``Annotations/a.xml``            the object of the same number: its flags ``occluded`` and ``difficult``; a difficult
                                 one is to be ignored. The file may be absent
``ImageSets/Segmentation``       ``train.txt`` and so on: the images of a split
===============================  =======================================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np

from bcnet.data.coco_json import short
from bcnet.data.findings import AnnotationError
from bcnet.data.importers.content import ContentBuilder, relative_name
from bcnet.data.importers.geometry import label_masks, window_rle
from bcnet.data.importers.label_files import Color, read_label_pages
from bcnet.data.records import DatasetInfo, ImageRecord

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_VOID = 255
_CLASS_FILES = ("labelmap.txt", "class_names.txt", "labels.txt")
_IGNORED = "__ignore__"
_OFFICIAL = re.compile(r"VOC20\d\d")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def load_voc(folder: str, split: str | None = None, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads the object segmentations of a folder such as ``VOCdevkit/VOC2012`` (see the module's text).

    Args:
        folder: with ``SegmentationObject`` and ``JPEGImages``.
        split: a name in ``ImageSets/Segmentation``; None takes every file of ``SegmentationObject``.
        name: what to call the data set; the folder by default.

    Raises:
        ValueError: no segmentations, an unknown split or malformed files; names the file.
    """
    objects = os.path.join(folder, "SegmentationObject")
    if not os.path.isdir(objects):
        raise ValueError(f"{folder} has no segmentations of VOC: there is no folder SegmentationObject")
    classes, colors, source = _classes(folder)
    builder = ContentBuilder(f"{folder}:{split}" if split else folder, folder, classes)
    if source is None and not _OFFICIAL.fullmatch(os.path.basename(os.path.abspath(folder))):
        builder.findings.hints.append(
            f"the 20 classes are taken to be VOC's own: there is no {', '.join(_CLASS_FILES)} that names others"
        )
    tables = {"SegmentationObject": _PALETTE, "SegmentationClass": colors or _PALETTE}
    for stem in _stems(folder, objects, split):
        try:
            _add_image(builder, folder, stem, classes, tables)
        except ValueError as error:
            builder.file_fault(f"image {stem!r}", error)
    return builder.read(name)


def _classes(folder: str) -> tuple[dict[int, str], dict[Color, int] | None, str | None]:
    """Names by number, numbers by the colours of a ``labelmap.txt``, and the file that names the classes, if any."""
    path = next((path for name in _CLASS_FILES if os.path.isfile(path := os.path.join(folder, name))), None)
    if path is None:
        return dict(enumerate(VOC_CLASSES, start=1)), None, None
    lines = [line for line in _lines(path) if line != _IGNORED and line[0] != "#"]
    colors = None
    if os.path.basename(path) == "labelmap.txt":
        fields = [line.split(":") for line in lines]
        try:
            colors = {_palette_color(_VOID): _VOID}
            colors |= {_color(field[1]): number for number, field in enumerate(fields) if field[1]}
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path}: its lines must be label:r,g,b:parts:actions, got {short(lines)}") from error
        lines = [field[0] for field in fields]
    first = 0 if lines and lines[0].strip("_").lower() == "background" else 1
    return {number: name for number, name in enumerate(lines, start=first) if number}, colors, path


def _color(text: str) -> Color:
    red, green, blue = (int(value) for value in text.split(","))
    return red, green, blue


def _palette_color(number: int) -> Color:
    """A colour of VOC's palette: the bits of the number in turn to red, green and blue, from the upper bits down."""
    bits = [[number >> (3 * place + channel) & 1 for place in range(8)] for channel in range(3)]
    red, green, blue = (sum(bit << (7 - place) for place, bit in enumerate(channel)) for channel in bits)
    return red, green, blue


_PALETTE: dict[Color, int] = {_palette_color(number): number for number in range(256)}


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8-sig") as file:
        return [line.strip() for line in file if line.strip()]


def _stems(folder: str, objects: str, split: str | None) -> list[str]:
    if split is None:
        return sorted(os.path.splitext(file)[0] for file in os.listdir(objects) if file.lower().endswith(".png"))
    lists = os.path.join(folder, "ImageSets", "Segmentation")
    path = os.path.join(lists, f"{split}.txt")
    if not os.path.isfile(path):
        known = sorted(os.path.splitext(file)[0] for file in os.listdir(lists)) if os.path.isdir(lists) else []
        raise ValueError(f"{folder} has no split {split!r}; those of {lists} are {', '.join(known) or 'none'}")
    return [line.split()[0] for line in _lines(path)]


def _add_image(
    builder: ContentBuilder,
    folder: str,
    stem: str,
    names: Mapping[int, str],
    tables: Mapping[str, Mapping[Color, int]],
) -> None:
    candidates = [os.path.join(folder, "JPEGImages", stem + suffix) for suffix in _IMAGE_SUFFIXES]
    path = next(filter(os.path.isfile, candidates), candidates[0])
    image = builder.add_image(relative_name(path, folder))
    values, classes = (_read(os.path.join(folder, kind, f"{stem}.png"), image, table) for kind, table in tables.items())
    flags = _flags(os.path.join(folder, "Annotations", f"{stem}.xml"))
    for number, (mask, x0, y0) in label_masks(np.where(values == _VOID, 0, values)).items():
        where = f"{stem} object {number}"
        pixels = classes[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]][mask > 0]
        present, counts = np.unique(pixels, return_counts=True)
        class_number = int(present[counts.argmax()])
        if class_number in (0, _VOID):
            message = f"most of its pixels are of class {class_number} in SegmentationClass"
            builder.fault(where, AnnotationError(message, "objects without a class"))
            continue
        if class_number not in names:
            known = f"the {len(names)} classes are {short(dict(names))}"
            message = f"its class is {class_number} in SegmentationClass, {known}"
            builder.fault(where, AnnotationError(message, "unknown classes"))
            continue
        builder.add(
            where,
            image,
            class_number,
            window_rle(mask, x0, y0, image.height, image.width),
            **flags.get(number, {}),
        )


def _read(path: str, image: ImageRecord, table: Mapping[Color, int]) -> np.ndarray:
    try:
        values = read_label_pages(path, table)[0]
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}", error.reason) from error
    if values.shape != (image.height, image.width):
        raise AnnotationError(
            f"{path} is {values.shape[1]} x {values.shape[0]} pixels, its image {image.width} x {image.height}",
            "segmentations of another size than the image",
        )
    return values


def _flags(path: str) -> Mapping[int, dict]:
    """By the number of an object from 1: its keys ``attributes`` and ``ignore``."""
    if not os.path.isfile(path):
        return {}
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
    except ElementTree.ParseError as error:
        raise AnnotationError(f"{path} is not XML: {error}", "annotations that are no XML") from error
    flags = {}
    for number, entry in enumerate(objects, start=1):
        occluded, difficult = (entry.findtext(key) for key in ("occluded", "difficult"))
        flags[number] = {
            "attributes": None if occluded is None else {"occluded": occluded.strip()},
            "ignore": None if difficult is None else difficult.strip(),
        }
    return flags
