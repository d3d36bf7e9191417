"""Reader of Pascal VOC's segmentations (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/; the text of its devkit).

===============================  =======================================================================================
file                             what is read
===============================  =======================================================================================
``SegmentationObject/a.png``     the objects of image a, by the indices 1, 2, ... of its palette; 0 is background,
                                 and 255 is void, which belongs to no object
``SegmentationClass/a.png``      the class of an object: the index that most of its pixels have. The 20 names are those
                                 of VOC, or the lines of a file ``labels.txt``
``Annotations/a.xml``            the object of the same number: its flags ``occluded`` and ``difficult``; a difficult
                                 one is to be ignored. The file may be absent
``ImageSets/Segmentation``       ``train.txt`` and so on: the images of a split
===============================  =======================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np

from bcnet.data.findings import AnnotationError
from bcnet.data.importers.content import ContentBuilder, relative_name
from bcnet.data.importers.geometry import label_masks, window_rle
from bcnet.data.importers.label_files import read_label_pages
from bcnet.data.records import DatasetInfo, ImageRecord

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_VOID = 255
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
    listed = os.path.join(folder, "labels.txt")
    classes = list(VOC_CLASSES) if not os.path.isfile(listed) else _lines(listed)
    builder = ContentBuilder(f"{folder}:{split}" if split else folder, folder, classes)
    for stem in _stems(folder, objects, split):
        try:
            _add_image(builder, folder, stem)
        except ValueError as error:
            builder.file_fault(f"image {stem!r}", error)
    return builder.read(name)


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


def _add_image(builder: ContentBuilder, folder: str, stem: str) -> None:
    candidates = [os.path.join(folder, "JPEGImages", stem + suffix) for suffix in _IMAGE_SUFFIXES]
    path = next(filter(os.path.isfile, candidates), candidates[0])
    image = builder.add_image(relative_name(path, folder))
    values, classes = (
        _read(os.path.join(folder, kind, f"{stem}.png"), image) for kind in ("SegmentationObject", "SegmentationClass")
    )
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
        builder.add(
            where,
            image,
            class_number,
            window_rle(mask, x0, y0, image.height, image.width),
            **flags.get(number, {}),
        )


def _read(path: str, image: ImageRecord) -> np.ndarray:
    try:
        values = read_label_pages(path)[0]
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
