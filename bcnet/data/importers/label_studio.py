"""Reader of Label Studio's json export of image segmentations (https://labelstud.io/guide/task_format).

================================  ======================================================================================
result of a task                  what is read
================================  ======================================================================================
``brushlabels``                   the mask: `bcnet.data.importers.label_studio_rle`
``polygonlabels``                 the polygon, in percent of the image's sides
``ellipselabels``                 a polygon around the ellipse, in percent, turned clockwise
``rectanglelabels``               an object without a mask; of a turned one the box around it
``brush``, ``polygon``, ...       the same, with the label in another result of the same ``id`` (``labels``)
others                            dropped, counted
``original_width``, ``_height``   the image's size
``annotations``                   the first that was not cancelled; further ones, by other people, are dropped, counted,
                                  and so are ``predictions``. One with an empty result is an image without objects;
                                  tasks that were skipped or not annotated are left out, counted
================================  ======================================================================================

An image is found in the image folder by the file name at the end of its URL: as it is, without the eight characters and
the hyphen that Label Studio puts before uploads, and, for local storage (``?d=``), with its folders.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from bcnet.data.coco_json import is_finite, missing, short
from bcnet.data.findings import AnnotationError
from bcnet.data.images import IMAGE_SUFFIXES
from bcnet.data.importers.content import ContentBuilder
from bcnet.data.importers.geometry import ellipse, flat_points, window_rle
from bcnet.data.importers.label_studio_rle import decode_brush
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json

_SHAPES = ("brush", "polygon", "ellipse", "rectangle")
_LABEL_KEYS = ("labels", *(f"{shape}labels" for shape in _SHAPES))
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")


def load_label_studio(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads an export in the format "JSON" (see the module's text).

    Args:
        annotation_file: path of the json, a list of tasks.
        image_root: folder of the images.
        name: what to call the data set; the file's path by default.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: malformed content; names the file, the task, the result and the value.
    """
    tasks = read_json(annotation_file)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f"{annotation_file} is not an export of Label Studio: it must be a list of tasks")
    if tasks and not any("annotations" in task or "completions" in task for task in tasks):
        raise ValueError(
            f"{annotation_file} has no annotations (is it the format JSON-MIN?); export it in the format JSON"
        )
    builder = ContentBuilder(annotation_file, image_root)
    for position, task in enumerate(tasks):
        label = f"task {task.get('id', position)}"
        try:
            _add_task(builder, task, label)
        except ValueError as error:
            builder.file_fault(label, error)
    return builder.read(name)


def _add_task(builder: ContentBuilder, task: Mapping[str, Any], label: str) -> None:
    results = _results(builder, task, label)
    if results is None:
        return
    file_name = _find_image(task, builder.image_root)
    sizes = [[r.get("original_height"), r.get("original_width")] for r in results if r.get("original_width")]
    if any(size != sizes[0] for size in sizes):
        raise AnnotationError(f"its results are of images of several sizes: {short(sizes)}", "results of several sizes")
    image = builder.add_image(file_name, *(sizes[0] if sizes else (None, None)))
    # A label may be another result of the same region; a shape with two sets of labels comes twice.
    regions = [repr(result.get("id", number)) for number, result in enumerate(results)]
    labels: dict[object, list[str]] = {}
    for region, result in zip(regions, results, strict=True):
        key = region if result.get("type") == "labels" else (region, _geometry(result))
        labels.setdefault(key, []).extend(_labels(result))
    seen = set()
    for number, (result, region) in enumerate(zip(results, regions, strict=True), start=1):
        where = f"{label} result {number}"
        value, kind = result.get("value"), str(result.get("type"))
        shape = kind.removesuffix("labels")
        if shape not in _SHAPES or not isinstance(value, dict):
            if kind != "labels" or regions.count(region) == 1:
                builder.findings.drop("results that are no masks, polygons, ellipses or boxes, dropped", where, kind)
            continue
        key = region, _geometry(result)
        if (shape, key) in seen:
            continue
        seen.add((shape, key))
        try:
            names = list(dict.fromkeys([*labels[key], *labels.get(region, [])]))
            class_name = names[0] if names else None
            if len(names) > 1:
                builder.findings.note("shapes of several labels, the first is taken", where, ", ".join(names))
            if class_name is None:
                builder.findings.drop("shapes without a label, dropped", where)
            elif result.get("image_rotation"):
                raise AnnotationError(
                    f"its image_rotation is {short(result['image_rotation'])}; turn the image itself", "turned images"
                )
            elif shape == "rectangle":
                builder.add(where, image, class_name, bbox=_box(value, image))
            else:
                builder.add(where, image, class_name, _segmentation(shape, value, image))
        except ValueError as error:
            builder.fault(where, error)


def _results(builder: ContentBuilder, task: Mapping[str, Any], label: str) -> list[dict] | None:
    """The results of a task; None where nobody annotated it, which goes to the findings."""
    annotations = task.get("annotations", task.get("completions")) or []
    if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
        raise AnnotationError(f"its annotations must be a list, got {short(annotations)}", "malformed annotations")
    skipped = bool(annotations)
    annotations = [entry for entry in annotations if not entry.get("was_cancelled")]
    if not annotations:
        other = "tasks with predictions alone" if task.get("predictions") else "tasks without an annotation"
        builder.findings.drop(f"{'tasks that were skipped' if skipped else other}, left out", label)
        return None
    for _ in annotations[1:]:
        builder.findings.drop("further annotations of a task, dropped", label)
    results = annotations[0].get("result")
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise AnnotationError(f"its result must be a list, got {short(results)}", "malformed results")
    return results


def _find_image(task: Mapping[str, Any], image_root: str) -> str:
    """The image's file name from the image root."""
    data = task.get("data")
    fault = missing(task, ("data",))
    if fault is not None or not isinstance(data, dict):
        raise AnnotationError(fault or f"its data must be an object, got {short(data)}", "tasks without data")
    texts = [value for value in data.values() if isinstance(value, str)]
    urls = [text for text in texts if _path_of(text).lower().endswith(IMAGE_SUFFIXES)]
    if not urls:
        raise AnnotationError(f"its data names no image: {short(data)}", "tasks without an image")
    path = _path_of(urls[0]).lstrip("/")
    base = os.path.basename(path)
    candidates = [path, base, _UPLOAD_PREFIX.sub("", base, count=1)]
    folders = path.split("/")
    candidates += ["/".join(folders[start:]) for start in range(1, len(folders) - 1)]
    return next((name for name in candidates if os.path.isfile(os.path.join(image_root, name))), candidates[2])


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


def _geometry(result: Mapping[str, Any]) -> str:
    """Tells two shapes of one id apart; the same of a shape that comes twice, with two sets of labels."""
    value = result.get("value")
    return (
        repr({key: entry for key, entry in value.items() if key not in _LABEL_KEYS}) if isinstance(value, dict) else ""
    )


def _labels(result: Mapping[str, Any]) -> list[str]:
    value = result.get("value")
    lists = [value.get(key) for key in _LABEL_KEYS] if isinstance(value, dict) else []
    names = next((names for names in lists if isinstance(names, list) and names), [])
    return names if all(isinstance(name, str) for name in names) else []


def _segmentation(shape: str, value: Mapping[str, Any], image: ImageRecord) -> list | dict:
    if shape == "brush":
        mask = decode_brush(value.get("rle"), image.height, image.width)
        return dict(window_rle(mask, 0, 0, image.height, image.width))
    if shape == "polygon":
        points = flat_points(value.get("points"))
        return [[v * side / 100 for v, side in zip(points, [image.width, image.height] * len(points), strict=False)]]
    x, y, radius_x, radius_y = _numbers(value, "x", "y", "radiusX", "radiusY")
    width, height = image.width / 100, image.height / 100
    turn = _numbers({"rotation": 0, **value}, "rotation")[0]
    return [ellipse(x * width, y * height, radius_x * width, radius_y * height, turn)]


def _numbers(value: Mapping[str, Any], *keys: str) -> list[float]:
    for key in keys:
        if not is_finite(value.get(key)):
            raise AnnotationError(f"{key} must be a finite number, got {short(value.get(key))}", f"malformed {key}")
    return [value[key] for key in keys]


def _box(value: Mapping[str, Any], image: ImageRecord) -> list[float]:
    """xywh around a rectangle, which is turned clockwise about its first corner."""
    x, y, width, height = _numbers(value, "x", "y", "width", "height")
    x, width = x * image.width / 100, width * image.width / 100
    y, height = y * image.height / 100, height * image.height / 100
    turn = math.radians(_numbers({"rotation": 0, **value}, "rotation")[0])
    if not turn:
        return [x, y, width, height]
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    xs = [x + a * math.cos(turn) - b * math.sin(turn) for a, b in corners]
    ys = [y + a * math.sin(turn) + b * math.cos(turn) for a, b in corners]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
