"""Masks for a COCO results file of any detector (`bcnet segment`): boxes in, the same entries with masks out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pycocotools.mask as maskUtils
from tqdm import tqdm

from bcnet.data import find_images, image_array
from bcnet.data.classes import class_positions
from bcnet.data.coco_json import (
    check_box_numbers,
    is_finite,
    is_id,
    is_number_id,
    missing,
    normal_id,
    read_categories,
    read_coco_json,
    read_image,
    short,
)
from bcnet.data.findings import Findings
from bcnet.failures import Failures
from bcnet.files import read_json, write_json, write_json_list
from bcnet.maps import BOUNDARY
from bcnet.prediction.files import PredictionSummary
from bcnet.side_file import SideFile
from bcnet.words import OBJECT, counted

if TYPE_CHECKING:
    from bcnet.export.runtime import ExportedPredictor
    from bcnet.prediction.predictor import Predictor
    from bcnet.structures import Detections

logger = logging.getLogger(__name__)

_OPTIONAL = ("category_id", "score")  # of an entry; null is as if absent
_COCO_STEM = re.compile(r"(?:.*_)?(\d+)")  # 000000000139, COCO_val2014_000000000139


@dataclass
class BoxFile:
    """A results file, read.

    Attributes:
        content: what it held: a list of results, or an object with ``annotations``.
        by_image: entries with boxes by image id, in the file's order.
        class_names, category_ids: of the classes that the entries have; names are empty where they are not known.
        shown_names: names for pictures: those, else "category 18" and so on; "object" for entries without categories.
    """

    content: list | dict
    by_image: dict[int | str, list[dict]]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]

    @property
    def shown_names(self) -> tuple[str, ...]:
        return self.class_names or tuple(f"category {number}" for number in self.category_ids) or (OBJECT,)


def segment_file(
    model: Predictor | ExportedPredictor,
    boxes: str | os.PathLike,
    images: str | os.PathLike,
    output: str | os.PathLike,
    *,
    annotations: str | os.PathLike | None = None,
    pictures: str | os.PathLike | None = None,
    layers: bool = False,
    score_threshold: float | None = None,
    mask_threshold: float = 0.5,
    with_occluder: bool = True,
    resume: bool = False,
    progress: bool = True,
) -> PredictionSummary:
    """Writes a results file again with a mask for each box, and the occluder layer and occlusion relations.

    An entry keeps all that it has (ids, box, score) and gets ``segmentation`` and, with the occluder layer,
    ``occluder_segmentation``, ``number``, ``occluded_by`` and ``depth`` (`Detections.to_coco`). A box without a score
    counts as certain and gets 1.0, which COCO results must have. The output has the form
    of the input, a list of results or an object with ``annotations``, with entries by image. Boxes without area or
    outside their image are left out and logged; so are the entries of an image that cannot be read.

    The results are kept in ``<output>.partial`` as they come, for `resume`; at the end it is removed.

    Args:
        model: as `bcnet.load` gives it; an exported one, not opened for tensors, needs no torch.
        boxes: json file: COCO results, a list of ``image_id`` and ``bbox`` (xywh in pixels), with or without
            ``category_id`` and ``score``; or a COCO file whose annotations are such, as ``bcnet predict`` writes it.
        images: folder of the images.
        output: the json file to write.
        annotations: COCO json that says which file belongs to an image id. Without it the boxes' own list of images
            says so, else the file names: the id, or the number that they end with (``000000000139.jpg`` is image 139).
        pictures: folder for a picture of each image: the detections, or with `layers` a sheet with both layers.
        score_threshold: lowest score of the boxes to keep; None keeps all.
        mask_threshold, with_occluder: as `Predictor.segment` takes them.

    Raises:
        FileNotFoundError: no such file or folder, or no file for an image id.
        ValueError: a malformed file, naming its first faults; masks by class and categories that are not the model's.
        BlockingIOError: another process writes the same output.
    """
    output = os.fspath(output)
    given = read_boxes(os.fspath(boxes), annotations=annotations, score_threshold=score_threshold)
    class_of = _classes(model, given)
    files = _image_files(given, os.fspath(images), os.fspath(annotations) if annotations else None)
    os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
    checksum = zlib.crc32(json.dumps(list(given.by_image.values())).encode())
    options = {"mask_threshold": mask_threshold, "with_occluder": with_occluder, "score_threshold": score_threshold}
    description = {"segmentations": 1, "boxes": checksum, **options}
    draw = None if pictures is None else _drawer(list(files.values()), pictures, layers=layers)
    failures = Failures()
    summary = PredictionSummary(failures=failures)
    with contextlib.closing(SideFile(f"{output}.partial", description, restart=not resume)) as side:
        if not resume:
            side.clear()
        bar = tqdm(total=len(files), initial=side.count, desc="Segmenting", unit="img", disable=not progress)
        with bar:
            for image_id, file in list(files.items())[side.count :]:
                entries = given.by_image[image_id]
                result: dict = {"file_name": file, "entries": []}
                with failures.survived(file):
                    pixels = image_array(file, max_pixels=model.max_image_pixels)
                    kept = _inside(entries, pixels.shape[:2], file)
                    detections = model.segment(
                        pixels,
                        [entry["bbox"] for entry in kept],
                        [class_of(entry) for entry in kept],
                        [entry.get("score", 1.0) for entry in kept],
                        "RGB",
                        box_format="xywh",
                        class_names=given.shown_names if model.mask_classes == 1 else (),
                        mask_threshold=mask_threshold,
                        with_occluder=with_occluder,
                    )
                    result["entries"] = _with_masks(kept, detections)
                    if draw is not None:
                        draw(file, pixels, detections)
                if file in failures:
                    result["failure"] = failures[file]
                side.append([json.dumps(result)])
                bar.update()
        entries = []
        for result in side.results():
            entries += result["entries"]
            summary.images += "failure" not in result
            if "failure" in result:
                failures[result["file_name"]] = result["failure"]
        summary.instances = len(entries)
        if isinstance(given.content, dict):
            write_json(output, {**given.content, "annotations": entries}, indent=None)
        else:
            write_json_list(output, entries)
        side.remove()
    return summary


def _drawer(
    files: Sequence[str], folder: str | os.PathLike, *, layers: bool
) -> Callable[[str, np.ndarray, Detections], object]:
    # Imported here: the fonts and colours of pictures take a second.
    from bcnet.visualization.gallery import Gallery, output_names

    gallery = Gallery(folder, layers=layers, heat_maps=False)
    names = dict(zip(files, output_names(files), strict=True))
    return lambda file, pixels, detections: gallery.add(names[file], pixels, detections)


def read_boxes(
    path: str, *, annotations: str | os.PathLike | None = None, score_threshold: float | None = None
) -> BoxFile:
    """Reads and checks a results file; see `segment_file`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is malformed; names its first faults.
    """
    content = read_json(path)
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(f"{path} must hold a list of COCO results, or an object with annotations: {short(content)}")
    findings = Findings(path)
    by_image: dict[int | str, list[dict]] = {}
    low = 0
    unscored = []
    for index, entry in enumerate(entries):
        label = f"result {index}"
        try:
            _check_entry(entry)
        except ValueError as error:
            findings.fault(label, error)
            continue
        entry = dict(entry)
        for key in _OPTIONAL:
            if entry.get(key, 0) is None:
                del entry[key]
        if "score" not in entry:
            unscored.append(label)
        if score_threshold is not None and entry.get("score", 1.0) < score_threshold:
            low += 1
        elif entry["bbox"][2] <= 0 or entry["bbox"][3] <= 0:
            findings.drop("boxes of zero width or height, left out", label)
        else:
            by_image.setdefault(normal_id(entry["image_id"]), []).append(entry)
    if len(unscored) < len(entries):
        for label in unscored:
            findings.note("boxes without a score among boxes with one, taken as 1.0", label)
    findings.raise_if_faulty()
    findings.log(logger)
    if low:
        logger.info("%s: %d of %d boxes have a score below %g, left out", path, low, len(entries), score_threshold)
    categories = content.get("categories") if isinstance(content, dict) else None
    if not categories and annotations is not None:
        categories = read_coco_json(os.fspath(annotations))["categories"]
    ids = sorted({int(entry["category_id"]) for kept in by_image.values() for entry in kept if "category_id" in entry})
    if not categories:
        return BoxFile(content, by_image, (), tuple(ids))
    info, _ = read_categories(categories, path, "", path, Findings(path))
    unknown = [category for category in ids if category not in info.category_ids]
    if unknown:
        raise ValueError(f"{path}: category ids {short(unknown)} are not among {short(list(info.category_ids))}")
    return BoxFile(content, by_image, info.class_names, info.category_ids)


def _check_entry(entry: object) -> None:
    fault = missing(entry, ("image_id", "bbox"))
    if fault is not None or not isinstance(entry, dict):
        raise ValueError(fault)
    if not is_id(entry["image_id"]):
        raise ValueError(f"image_id must be a whole number or a text, got {short(entry['image_id'])}")
    if entry.get("category_id") is not None and not is_number_id(entry["category_id"]):
        raise ValueError(f"category_id must be a whole number, got {short(entry['category_id'])}")
    if entry.get("score") is not None and not is_finite(entry["score"]):
        raise ValueError(f"score must be a finite number, got {short(entry['score'])}")
    check_box_numbers("bbox", entry["bbox"])


def _classes(model: Predictor | ExportedPredictor, given: BoxFile) -> Callable[[dict], int]:
    """The class of an entry: the position of its category, or the model's class of that name for masks by class."""
    positions: Sequence[int | None] = range(len(given.category_ids))
    if model.mask_classes > 1:
        if not given.class_names or not model.class_names:
            raise ValueError("the model's masks are by class: categories with names are needed (--annotations)")
        positions = class_positions(given.class_names, model.class_names, "the boxes", "the model")
    by_id = dict(zip(given.category_ids, positions, strict=True))

    def class_of(entry: dict) -> int:
        position = by_id.get(int(entry["category_id"])) if "category_id" in entry else 0
        if position is None:
            raise ValueError(f"category {entry['category_id']} is not a class of the model, whose masks are by class")
        return position

    return class_of


def _image_files(given: BoxFile, folder: str, annotations: str | None) -> dict[int | str, str]:
    """The file of each image that has boxes."""
    listed = read_coco_json(annotations)["images"] if annotations else None
    if listed is None and isinstance(given.content, dict):
        listed = given.content.get("images")
    if listed:
        source = annotations or "the boxes"
        records = [read_image(image, source, folder) for image in listed]
        files = {record.image_id: record.file_name for record in records}
    else:
        files = _by_name(find_images([folder]))
        source = f"{folder!r}, by file name (--annotations says which file belongs to an image)"
    absent = [image_id for image_id in given.by_image if image_id not in files]
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of {len(given.by_image)} images with boxes have no file in {source}, the first is "
            f"image {absent[0]!r}"
        )
    return {image_id: files[image_id] for image_id in given.by_image}


def _by_name(paths: Sequence[str]) -> dict[int | str, str]:
    """Files by all ids that their names stand for; a number that two of them end with stands for none."""
    files: dict[int | str, list[str]] = {}
    for path in paths:
        name = os.path.basename(path)
        stem = os.path.splitext(name)[0]
        number = _COCO_STEM.fullmatch(stem)
        for key in {name, stem, *([int(number[1])] if number else [])}:
            files.setdefault(key, []).append(path)
    return {key: found[0] for key, found in files.items() if len(found) == 1}


def _inside(entries: Sequence[dict], size: tuple[int, ...], file: str) -> list[dict]:
    """The entries whose boxes lie in the image at least in part; the others are logged."""
    height, width = size
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    x, y, w, h = boxes.T
    inside = (x < width) & (y < height) & (x + w > 0) & (y + h > 0)
    if not inside.all():
        first = entries[int(np.argmin(inside))]["bbox"]
        logger.warning(
            "%s: %s outside its %d x %d pixels, left out: %s",
            file,
            counted(int((~inside).sum()), "box", "boxes"),
            width,
            height,
            first,
        )
    return [entry for entry, kept in zip(entries, inside, strict=True) if kept]


def _with_masks(entries: Sequence[dict], detections: Detections) -> list[dict]:
    names = [spec.name for spec in detections.present if spec.kind != BOUNDARY]
    results = detections.to_coco(0, range(int(detections.classes.max()) + 1) if len(detections) else (), names=names)
    filled = []
    for entry, result in zip(entries, results, strict=True):
        maps = {key: value for key, value in result.items() if key not in ("image_id", "category_id", "bbox", "score")}
        area = {"area": float(maskUtils.area(result["segmentation"]))} if "area" in entry else {}
        filled.append({**entry, "score": entry.get("score", 1.0), **maps, **area})
    return filled
