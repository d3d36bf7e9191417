"""COCO results files of any tool: reading, checking, and one form for boxes and masks."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

from bcnet.data.classes import class_positions
from bcnet.data.coco_json import (
    check_box_numbers,
    every_polygon_dropped,
    is_finite,
    is_id,
    is_number_id,
    missing,
    normal_id,
    read_categories,
    read_image,
    read_mask,
    short,
)
from bcnet.data.findings import AnnotationError, Findings
from bcnet.data.records import ImageRecord
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.files import read_json
from bcnet.ops.rle import RLE, box_rle, rle_to_json, segmentation_to_rle

logger = logging.getLogger(__name__)

_IDS = ("image_id", "category_id")
_MASKS = ("segmentation", "amodal_segmentation")


def read_results(path: str | os.PathLike, ground_truth: GroundTruth) -> list[dict]:
    """Reads a results file and brings it to one form (`uniform_results`).

    The file is a JSON list of COCO results; or a COCO annotation file whose annotations have a ``score``, as
    ``bcnet predict`` writes it. The latter lists images and categories of its own, with its own ids: its images are
    matched by file name, its categories by name. For a class-agnostic ground truth (`GroundTruth.without_classes`) the
    categories of the results, if they have any, are left out of account.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not such a file, or an entry is malformed or of another data set; names file and entry.
    """
    content = read_json(path)
    if ground_truth.class_agnostic:
        content = _without_classes(content, ground_truth)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = _translated(content, ground_truth, os.fspath(path))
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a JSON list of results, got {short(content)}")
    return uniform_results(content, ground_truth, os.fspath(path))


def uniform_results(results: Sequence[dict], ground_truth: GroundTruth, source: str = "results") -> list[dict]:
    """Checks COCO results and brings their boxes and masks to one form.

    A mask may be polygons or an RLE, compressed or not. An empty one (null, ``[]``) among results with masks is a
    mask without pixels: a detection that matches nothing. If no result has a mask, the results are of boxes alone. The
    amodal masks of a model that has them, ``amodal_segmentation``, are read like the visible ones.

    Args:
        results: dicts with ``image_id``, ``category_id``, ``score`` and ``bbox`` (xywh in pixels of the image) or
            ``segmentation``, or both. They are not changed.
        ground_truth: the images and categories that the results must be of.
        source: what to call the results in messages.

    Returns:
        list[dict]: copies in which all have a ``bbox`` or none has, and all have a ``segmentation`` (compressed RLE
        with its counts as text) or none has, and so with ``amodal_segmentation``.

    Raises:
        ValueError: names the source, and the entry and the actual value of the first faults: a missing key, an unknown
            image or category, a score or box that is not finite, a box of negative size, an RLE of another size than
            its image or whose runs do not fill it; an entry without box or mask where others have one.
    """
    findings = Findings(source)
    uniform = []
    for index, result in enumerate(results):
        try:
            uniform.append(uniform_result(result, ground_truth, findings, f"result {index}"))
        except ValueError as error:
            findings.fault(f"result {index}", error)
    findings.raise_if_faulty()
    for key in _MASKS:
        _complete_masks(uniform, key, ground_truth, findings)
    for key in ("bbox", *_MASKS):
        without = [index for index, result in enumerate(uniform) if key not in result]
        if 0 < len(without) < len(uniform):
            have = len(uniform) - len(without)
            message = f"it has no {key}, but {have} of {len(uniform)} results have one"
            findings.fault(f"result {without[0]}", ValueError(message))
    if uniform and not uniform[0].keys() & {"bbox", "segmentation"}:
        findings.fault("result 0", ValueError(f"it has neither bbox nor segmentation: {short(results[0])}"))
    findings.raise_if_faulty()
    findings.log(logger)
    return uniform


def uniform_result(result: dict, ground_truth: GroundTruth, findings: Findings, label: str) -> dict:
    """One result of `uniform_results`: a checked copy.

    Args:
        findings: receives what was dropped.
        label: what to call the result in the findings.

    Returns:
        dict: without ``bbox`` where it is null; with masks that are None where they are null or empty.

    Raises:
        ValueError: as `uniform_results`, without source and entry.
    """
    fault = missing(result, (*_IDS, "score"))
    if fault is not None:
        agnostic = "category_id" in fault and "image_id" not in fault
        hint = " (class_agnostic, --class-agnostic compares without categories)" if agnostic else ""
        raise ValueError(f"{fault}{hint}: {short(result)}")
    image_id, category_id, score = (result[key] for key in (*_IDS, "score"))
    if not is_id(image_id) or image_id not in ground_truth.image_numbers:
        raise ValueError(f"image_id {short(image_id)} is not listed in {ground_truth.source}")
    if not is_id(category_id) or category_id not in ground_truth.category_ids:
        raise ValueError(f"category_id {short(category_id)} is not one of {short(sorted(ground_truth.category_ids))}")
    if not is_finite(score):
        raise ValueError(f"score must be a finite number, got {short(score)}")
    image_id = normal_id(image_id)
    uniform = {**result, "image_id": image_id, "category_id": normal_id(category_id)}
    if result.get("bbox") in (None, []):
        uniform.pop("bbox", None)
    else:
        check_box_numbers("bbox", result["bbox"])
    record = ImageRecord("", image_id, *ground_truth.image_size(image_id))
    for key in _MASKS:
        if key in result:
            uniform[key] = _read_segmentation(key, result[key], record, findings, label)
    if "occluded_by" in result:
        _check_relations(result)
    return uniform


def _read_segmentation(key: str, segmentation: Any, record: ImageRecord, findings: Findings, label: str) -> RLE | None:
    """A compressed RLE with its counts as text; None for null, ``[]``, ``{}`` and ``[[]]``."""
    if not segmentation or (isinstance(segmentation, list) and not any(segmentation)):
        return None
    if not isinstance(segmentation, dict):
        mask = read_mask(key, segmentation, record, findings, label)
        if mask is None:
            raise every_polygon_dropped(key, segmentation)
        segmentation = mask.segmentation
    return rle_to_json(segmentation_to_rle(segmentation, record.height, record.width))


def _check_relations(result: dict) -> None:
    """Raises ValueError unless ``number``, ``occluded_by`` and ``depth`` are as `Detections.to_coco` writes them."""
    occluders = result["occluded_by"]
    is_list = isinstance(occluders, list) and all(isinstance(pair, (list, tuple)) for pair in occluders)
    if not is_list or not all(len(pair) == 2 and is_id(pair[0]) and is_finite(pair[1]) for pair in occluders):
        raise ValueError(f"occluded_by must be a list of [number, confidence], got {short(occluders)}")
    for key in ("number", "depth"):
        if not is_finite(result.get(key)):
            raise ValueError(f"occluded_by comes with a {key}, got {short(result.get(key))}")


def _complete_masks(results: Sequence[dict], key: str, ground_truth: GroundTruth, findings: Findings) -> None:
    """Replaces empty masks of a key by masks without pixels; drops them where no result has a mask."""
    has_masks = any(result.get(key) for result in results)
    for index, result in enumerate(results):
        if result.get(key, True) is not None:
            continue
        if has_masks:
            result[key] = rle_to_json(box_rle(0, 0, 0, 0, ground_truth.image_size(result["image_id"])))
            findings.note(f"results with an empty {key}, taken as masks without pixels", f"result {index}")
        else:
            del result[key]


def _without_classes(content: Any, ground_truth: GroundTruth) -> Any:
    """The content of a results file with the one class of the ground truth for every result."""
    category = ground_truth.category_ids[0]
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        return content
    entries = [{**entry, "category_id": category} if isinstance(entry, dict) else entry for entry in entries]
    if not isinstance(content, dict):
        return entries
    return {**content, "annotations": entries, "categories": [{"id": category, "name": ground_truth.class_names[0]}]}


def _translated(content: dict, ground_truth: GroundTruth, source: str) -> list[dict]:
    """The annotations of a COCO file with scores, with the ground truth's ids of images and categories."""
    results = content["annotations"]
    if not isinstance(content.get("images"), list) or not isinstance(content.get("categories"), list):
        return results  # a list of results under this key, with the ground truth's own ids
    findings = Findings(source)
    image_ids = _image_ids(content["images"], ground_truth, findings)
    listed, total = len(set(image_ids.values())), len(ground_truth.images)
    if listed < total:
        what = "%s lists %d of the %d images of %s: objects of the others count as not found"
        logger.warning(what, source, listed, total, ground_truth.source)
    info, class_of = read_categories(content["categories"], source, "", source, findings)
    positions = class_positions(info.class_names, ground_truth.class_names, source, ground_truth.source)
    translated = []
    for index, result in enumerate(results):
        image_id, category_id = (result.get(key) if isinstance(result, dict) else None for key in _IDS)
        known = is_id(image_id) and image_id in image_ids
        if not known or not is_number_id(category_id) or category_id not in class_of:
            findings.fault(f"result {index}", ValueError(f"the file lists no such image or category: {short(result)}"))
            continue
        position = positions[class_of[normal_id(category_id)]]
        if position is None:
            findings.drop(f"results of classes that {ground_truth.source} lacks, left out", f"result {index}")
        else:
            category_id = ground_truth.category_ids[position]
            translated.append({**result, "image_id": image_ids[image_id], "category_id": category_id})
    findings.raise_if_faulty()
    findings.log(logger)
    return translated


def _image_ids(images: Iterable[object], ground_truth: GroundTruth, findings: Findings) -> dict:
    """The ground truth's image id of each of a file's images, by file name without folders.

    Raises:
        ValueError: a malformed image, or a file name that the ground truth lacks or has more than once.
    """
    by_name: dict[str, list[int | str]] = {}
    for image_id, image in ground_truth.images.items():
        by_name.setdefault(os.path.basename(str(image.get("file_name"))), []).append(image_id)
    ids = {}
    for position, image in enumerate(images):
        try:
            record = read_image(image, findings.annotation_file, "")
            candidates = by_name.get(os.path.basename(record.file_name), [])
            if len(candidates) != 1:
                what = f"the file {record.file_name!r} belongs to {len(candidates)} images of {ground_truth.source}"
                raise AnnotationError(f"{what}; it must be one", "images that cannot be matched")
            ids[record.image_id] = candidates[0]
        except AnnotationError as error:
            findings.fault(f"image at position {position}", error, of_annotation=False)
    findings.raise_if_faulty()
    return ids
