"""Reader of label images: files whose pixel values tell the objects of an image apart.

=================================  =====================================================================================
layout                             what is read
=================================  =====================================================================================
two folders, named alike           ``masks/a.tif`` of ``images/a.tif`` (StarDist), ``PedMasks/a_mask.png`` of
                                   ``PNGImages/a.png`` (Penn-Fudan)
one folder                         ``a_masks.png`` or ``a_cp_masks.tif`` beside ``a.png`` or ``a_img.png`` (Cellpose),
                                   ``a_label.png`` beside ``a_rgb.png`` (CVPPP)
one file for each object           a folder ``masks/a`` of ``images/a.png``; files ``masks/a_0.png``, ``masks/a_1.png``;
                                   ``a/images`` and ``a/masks`` (Data Science Bowl 2018)
a stack                            a TIFF of several pages
values                             0 is background, every other value an object, of 8, 16 or 32 bits; of a palette image
                                   the indices. In files of one object each all values above 0 are the object
=================================  =====================================================================================

Objects of different pages or files may share pixels, and stay whole. There is one class, "object", and no depth order.
A value that has pixels in several places is one object: binary masks are not taken apart, but a warning counts them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bcnet.data.findings import AnnotationError
from bcnet.data.images import IMAGE_SUFFIXES
from bcnet.data.importers.content import ContentBuilder, files_below, relative_name
from bcnet.data.importers.geometry import label_masks, window_rle
from bcnet.data.importers.label_files import read_binary_mask, read_label_pages
from bcnet.data.records import DatasetInfo, ImageRecord

CLASS_NAME = "object"
_MASK_ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label", "_gt", "_instances", "_instance")
_IMAGE_ENDINGS = ("", "_img", "_image", "_rgb")
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "PedMasks", "gt", "instances")
_IMAGE_FOLDERS = ("images", "image", "PNGImages", "imgs", "img", "rgb", "raw")
_NUMBERED = re.compile(r"(.+?)[-_](?:mask[-_])?\d+")


@dataclass
class _Pair:
    """An image and its label files: one file of labels, or one for each object."""

    image: str
    labels: list[str]
    one_object_each: bool = False


def load_label_images(
    folder: str, image_root: str | None = None, name: str = ""
) -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads label images (see the module's text).

    Args:
        folder: of the label images; or of the images too, as the text shows.
        image_root: folder of the images, where it is another one.
        name: what to call the data set; the folder by default.

    Raises:
        ValueError: nothing that fits together, or malformed files; names the file.
    """
    builder = ContentBuilder(folder, image_root or folder, [CLASS_NAME])
    pairs = list(_pairs(builder, folder, image_root))
    if not pairs:
        raise ValueError(_nothing_fits(folder, image_root))
    for pair in pairs:
        label = relative_name(pair.image, builder.image_root)
        try:
            image = builder.add_image(label)
        except ValueError as error:
            builder.file_fault(label, error)
            continue
        for path in pair.labels:
            try:
                _add_labels(builder, image, path, pair.one_object_each)
            except ValueError as error:
                builder.file_fault(f"label image {relative_name(path, folder)!r}", error)
    return builder.read(name)


def _pairs(builder: ContentBuilder, folder: str, image_root: str | None) -> Iterator[_Pair]:
    if image_root is not None:
        yield from _of_two_folders(builder, image_root, folder)
        return
    masks, images = _subfolder(folder, _MASK_FOLDERS), _subfolder(folder, _IMAGE_FOLDERS)
    if masks and images:
        yield from _of_two_folders(builder, images, masks)
        return
    samples = [entry.path for entry in sorted(os.scandir(folder), key=lambda e: e.name) if entry.is_dir()]
    found = [(_subfolder(sample, _IMAGE_FOLDERS), _subfolder(sample, _MASK_FOLDERS)) for sample in samples]
    if any(images and masks for images, masks in found):
        for images, masks in found:
            if not (images and masks):
                continue
            for position, image in enumerate(_files(images)):
                if position:
                    builder.findings.drop("further images of a sample, dropped", relative_name(image, folder))
                else:
                    yield _Pair(image, _files(masks), one_object_each=True)
        return
    yield from _of_one_folder(builder, folder)


def _subfolder(folder: str, names: Sequence[str]) -> str | None:
    return next((path for name in names if os.path.isdir(path := os.path.join(folder, name))), None)


def _files(folder: str) -> list[str]:
    return files_below(folder, IMAGE_SUFFIXES)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _key(stem: str) -> str:
    """The name that a label image shares with its image."""
    return next((stem.removesuffix(ending) for ending in _MASK_ENDINGS if stem.endswith(ending)), stem)


def _by_name(images: Sequence[str], root: str) -> dict[str, str]:
    """Images by their names without endings, with the subfolder."""
    named: dict[str, str] = {}
    for ending in reversed(_IMAGE_ENDINGS):
        for path in images:
            place = os.path.splitext(relative_name(path, root))[0]
            if place.endswith(ending):
                named[place.removesuffix(ending)] = path
    return named


def _of_two_folders(builder: ContentBuilder, image_root: str, mask_root: str) -> Iterator[_Pair]:
    images = _by_name(_files(image_root), image_root)
    groups: dict[str, _Pair] = {}
    for path in _files(mask_root):
        place = os.path.splitext(relative_name(path, mask_root))[0]
        parent = os.path.dirname(place)
        if place in images or _key(place) in images:
            key, each = place if place in images else _key(place), False
        elif parent in images:
            key, each = parent, True
        elif (numbered := _NUMBERED.fullmatch(place)) and numbered[1] in images:
            key, each = numbered[1], True
        else:
            builder.findings.drop("label images without an image, dropped", relative_name(path, mask_root))
            continue
        pair = groups.setdefault(key, _Pair(images[key], [], each))
        pair.labels.append(path)
        pair.one_object_each = pair.one_object_each or each
    _drop_unlabelled(builder, images, {pair.image for pair in groups.values()})
    yield from sorted(groups.values(), key=lambda pair: pair.image)


def _of_one_folder(builder: ContentBuilder, folder: str) -> Iterator[_Pair]:
    files = _files(folder)
    masks = [path for path in files if _key(_stem(path)) != _stem(path)]
    images = _by_name([path for path in files if path not in set(masks)], folder)
    used = set()
    for path in masks:
        key = _key(os.path.splitext(relative_name(path, folder))[0])
        if key not in images:
            builder.findings.drop("label images without an image, dropped", relative_name(path, folder))
            continue
        used.add(images[key])
        yield _Pair(images[key], [path])
    _drop_unlabelled(builder, images, used)


def _drop_unlabelled(builder: ContentBuilder, images: dict[str, str], used: set[str]) -> None:
    for path in sorted(set(images.values()) - used):
        builder.findings.drop("images without a label image, dropped", relative_name(path, builder.image_root))


def _nothing_fits(folder: str, image_root: str | None) -> str:
    files = [relative_name(path, folder) for path in _files(folder)][:3]
    images = [relative_name(path, image_root) for path in _files(image_root)][:3] if image_root else []
    seen = f"{folder} has {', '.join(files) or 'no image files'}" + (
        f"; {image_root} has {', '.join(images) or 'no image files'}" if image_root else ""
    )
    return (
        f"no label image has an image of its name ({seen}); they are named alike in two folders "
        "(label-images:masks:images), or end with _masks, _mask or _label beside the image"
    )


def _add_labels(builder: ContentBuilder, image: ImageRecord, path: str, one_object: bool) -> None:
    where = relative_name(path, builder.source)
    pages = [read_binary_mask(path)] if one_object else read_label_pages(path)
    for number, page in enumerate(pages, start=1):
        if page.shape != (image.height, image.width):
            raise AnnotationError(
                f"it is {page.shape[1]} x {page.shape[0]} pixels, its image {image.width} x {image.height} "
                "(after EXIF orientation)",
                "label images of another size than their images",
            )
        objects = label_masks(np.asarray(page))
        if not one_object and len(pages) == 1 and len(objects) == 1 and _pieces(*objects.values()) > 1:
            builder.findings.note("label images of one value in several pieces (a binary mask of many objects?)", where)
        for value, (mask, x0, y0) in objects.items():
            label = f"{where} value {value}" + (f" page {number}" if len(pages) > 1 else "")
            builder.add(label, image, CLASS_NAME, window_rle(mask, x0, y0, image.height, image.width))


def _pieces(label: tuple[np.ndarray, int, int]) -> int:
    """Number of connected parts of a mask."""
    import cv2  # only where there is something to look at

    return cv2.connectedComponents(label[0])[0] - 1
