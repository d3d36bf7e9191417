"""Reader of YOLO's text files of segments and boxes, as ultralytics trains on them.

===========================  ===========================================================================================
what                         what is read
===========================  ===========================================================================================
``data.yaml``                ``names`` (list or by number), ``path``, and the images of a split (``train``, ``val``,
                             ``test``): a folder, a text file with one image a line, or a list of these. Paths start at
                             ``path``, and that at the yaml's folder; one that begins with ``../`` and is not there is
                             taken without it, as ultralytics does for Roboflow's exports
labels                       the last folder ``images`` of an image's path becomes ``labels``; else beside the image
a line of 7 numbers or more  class and polygon, in fractions of the image's sides
a line of 5 numbers          class and box (centre, width, height): an object without a mask
image without labels         an image without objects
sides of the image           after its EXIF orientation
===========================  ===========================================================================================

An object of several parts is one polygon in which bridges run there and back; it is read as such.
"""

from __future__ import annotations

import os
from collections import defaultdict

import yaml

from bcnet.data.coco_json import short
from bcnet.data.findings import AnnotationError
from bcnet.data.images import IMAGE_SUFFIXES
from bcnet.data.importers.content import ContentBuilder, files_below, relative_name
from bcnet.data.records import DatasetInfo, ImageRecord

SPLITS = ("train", "val", "test")
_CLASS_AND_BOX = 5
_DECIMALS = 9  # of a coordinate in pixels
_SLACK = 0.5  # of the image's side; a coordinate further outside is no fraction


def load_yolo(data_file: str, split: str | None = None, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads one split of a YOLO data set (see the module's text).

    Args:
        data_file: ``data.yaml``, or the folder that holds it.
        split: one of the yaml's; it may be left out where there is one alone.
        name: what to call the data set; the yaml by default.

    Raises:
        FileNotFoundError: images of the split that do not exist.
        ValueError: malformed content; names the file, the line and the value.
    """
    if os.path.isdir(data_file):
        data_file = _yaml_of(data_file)
    content = _read_yaml(data_file)
    names = _class_names(content.get("names"), data_file)
    if isinstance(content.get("nc"), int) and content["nc"] != len(names):
        raise ValueError(f"{data_file}: nc is {content['nc']}, but names has {len(names)} classes")
    known = [key for key in SPLITS if content.get(key)]
    if split is None and len(known) == 1:
        split = known[0]
    if not known:
        raise ValueError(f"{data_file} names no images: it must have one of {', '.join(SPLITS)}")
    if split not in known:
        raise ValueError(f"{data_file} has the splits {', '.join(known)}: name one, yolo:{data_file}:train")
    root = os.path.dirname(os.path.abspath(data_file)) if os.path.isabs(data_file) else os.path.dirname(data_file)
    images = _images(content, split, data_file)
    builder = ContentBuilder(f"{data_file}:{split}", _common_folder(images, root), names)
    for path in images:
        label = relative_name(path, builder.image_root)
        try:
            image = builder.add_image(label)
        except ValueError as error:
            builder.file_fault(label, error)
            continue
        labels = _label_file(path)
        if os.path.isfile(labels):
            _add_labels(builder, image, labels)
    _drop_labels_alone(builder, images)
    return builder.read(name)


def _yaml_of(folder: str) -> str:
    files = [os.path.join(folder, file) for file in sorted(os.listdir(folder)) if file.endswith((".yaml", ".yml"))]
    if len(files) != 1:
        raise ValueError(f"the folder {folder} must hold one yaml file, it holds {short(files)}")
    return files[0]


def _read_yaml(path: str) -> dict:
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a yaml file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a data.yaml: it must have names and the images of the splits")
    return content


def _class_names(names: object, path: str) -> dict[int, str]:
    """Names by number, in the order of the numbers."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(number) is int and number >= 0 for number in names):
        raise ValueError(f"{path}: names must be a list of class names, or names by number, got {short(names)}")
    return {number: str(names[number]) for number in sorted(names)}


def _images(content: dict, split: str, data_file: str) -> list[str]:
    """The image files of a split."""
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    if not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"{data_file}: {split} must be a path or a list of paths, got {short(content[split])}")
    root = os.path.join(os.path.dirname(data_file), str(content.get("path") or ""))
    images: list[str] = []
    for entry in entries:
        path = _existing(entry, (root, os.path.dirname(data_file)))
        if path is None:
            raise FileNotFoundError(f"{data_file}: the images of {split}, {entry!r}, were not found below {root!r}")
        images += files_below(path, IMAGE_SUFFIXES) if os.path.isdir(path) else _listed(path, (root,))
    if not images:
        raise ValueError(f"{data_file}: {split} has no images: {short(content[split])}")
    return list(dict.fromkeys(os.path.normpath(path) for path in images))


def _existing(entry: str, roots: tuple[str, ...]) -> str | None:
    entry = entry.replace("\\", "/")
    without_parent = [entry.removeprefix("../")] if entry.startswith("../") else []
    candidates = (os.path.join(root, path) for path in (entry, *without_parent) for root in roots)
    return next(filter(os.path.exists, candidates), None)


def _listed(path: str, roots: tuple[str, ...]) -> list[str]:
    """The images that a text file names, from its own folder (``./``) or the root."""
    if path.lower().endswith(IMAGE_SUFFIXES):
        return [path]
    with open(path, encoding="utf-8-sig") as file:
        lines = [line.strip() for line in file]
    beside = os.path.dirname(path)
    return [_existing(line, (*roots, beside)) or os.path.join(beside, line) for line in lines if line]


def _common_folder(images: list[str], root: str) -> str:
    """The folder that image names start at: the data set's, unless images lie elsewhere."""
    inside = all(not relative_name(path, root or ".").startswith("..") for path in images)
    return (root or ".") if inside else os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in images])


def _label_file(image: str) -> str:
    folder, file = os.path.split(os.path.splitext(image)[0] + ".txt")
    parts = folder.split(os.sep)
    for position in range(len(parts) - 1, -1, -1):
        if parts[position] == "images":
            return os.path.join(os.sep.join([*parts[:position], "labels", *parts[position + 1 :]]), file)
    return os.path.join(folder, file)


def _drop_labels_alone(builder: ContentBuilder, images: list[str]) -> None:
    """Counts the label files of the folders of labels that have no image."""
    folders = {os.path.dirname(_label_file(image)): os.path.dirname(image) for image in images}
    for labels, beside in folders.items():
        if labels == beside or not os.path.isdir(labels):
            continue
        stems = {os.path.splitext(file)[0] for file in os.listdir(beside)}
        for file in sorted(os.listdir(labels)):
            if file.endswith(".txt") and file.removesuffix(".txt") not in stems:
                name = relative_name(os.path.join(labels, file), builder.image_root)
                builder.findings.drop("label files without an image, dropped", name)


def _add_labels(builder: ContentBuilder, image: ImageRecord, path: str) -> None:
    label = relative_name(path, builder.image_root)
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.split() for line in file]
    except UnicodeDecodeError as error:
        builder.file_fault(label, AnnotationError(f"it is not a text file: {error}", "label files that are no text"))
        return
    seen: dict[tuple[str, ...], int] = defaultdict(int)
    for number, fields in enumerate(lines, start=1):
        if not fields:
            continue
        where = f"{label} line {number}"
        seen[tuple(fields)] += 1
        if seen[tuple(fields)] == 2:
            builder.findings.note("lines that an earlier line of the file repeats", where, " ".join(fields)[:60])
        try:
            category, values = _numbers(fields)
            if len(fields) == _CLASS_AND_BOX:
                builder.add(where, image, category, bbox=_box(values, image))
            else:
                builder.add(where, image, category, [_polygon(values, image)])
        except ValueError as error:
            builder.fault(where, error)


def _numbers(fields: list[str]) -> tuple[int, list[float]]:
    """Class number and coordinates of a line."""
    text = short(" ".join(fields))
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise AnnotationError(f"it must be numbers alone, got {text}", "lines that are not numbers") from error
    if len(fields) != _CLASS_AND_BOX and (len(fields) < 7 or len(fields) % 2 == 0):
        raise AnnotationError(
            f"it must be a class and a polygon of 3 points or more, or a class and a box, got {len(fields)} numbers: "
            f"{text}",
            "lines of another number of values",
        )
    number, coordinates = values[0], values[1:]
    if not number.is_integer():
        raise AnnotationError(f"its class must be a whole number, got {fields[0]}", "class numbers that are not whole")
    if not all(-_SLACK <= value <= 1 + _SLACK for value in coordinates):
        outside = next(value for value in coordinates if not -_SLACK <= value <= 1 + _SLACK)
        raise AnnotationError(
            f"its coordinates must be fractions of the image's sides, 0..1, got {outside:g} (pixels?)",
            "coordinates that are no fractions",
        )
    return int(number), coordinates


def _polygon(values: list[float], image: ImageRecord) -> list[float]:
    # Rounded to what a fraction can say, so that whole pixels and their halves come back as such.
    sides = (image.width, image.height)
    return [round(value * sides[position % 2], _DECIMALS) for position, value in enumerate(values)]


def _box(values: list[float], image: ImageRecord) -> list[float]:
    x, y, width, height = values
    return [
        (x - width / 2) * image.width,
        (y - height / 2) * image.height,
        width * image.width,
        height * image.height,
    ]
