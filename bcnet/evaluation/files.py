"""Everything that can be said about a results file, from the files alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from bcnet.data import DatasetInfo, ImageRecord, load_dataset
from bcnet.data.occluded_coco import load_occluded_coco
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.metrics import evaluate_results


def load_results(path: str | os.PathLike, ground_truth: GroundTruth) -> list[dict]:
    """Reads a COCO results file (a json list) and checks it against the annotation file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a list of COCO results of these images and categories; names the entry.
    """
    with open(path, encoding="utf-8") as file:
        try:
            results = json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(results, list):
        raise ValueError(f"{path} must hold a json list of results, got {type(results).__name__}")
    ground_truth.check_results(results, str(path))
    return results


def evaluate_files(
    annotations: str | os.PathLike,
    results: str | os.PathLike,
    score_threshold: float = 0.5,
    max_detections: int = 100,
    *,
    mask_target: str = "visible",
    split_lists: Mapping[str, str | os.PathLike] | None = None,
) -> dict:
    """All metrics of a results file; see `evaluate_results` for what they are.

    Args:
        annotations: COCO annotation file with annotations; or the name or spec of a data set
            (`bcnet.data.load_dataset`), for other formats.
        results: COCO results file.
        score_threshold: of the detections that are counted.
        mask_target: "visible", or "amodal" to compare with ``amodal_segmentation``: for models with amodal
            targets (``INPUT.MASK_TARGET``).
        split_lists: files of the published lists of objects of COCO val2017, by the names "occluded" and
            "separated".

    Raises:
        FileNotFoundError, KeyError, ValueError: as `ground_truth_of` and `load_results`; or no annotations.
    """
    truth = ground_truth_of(str(annotations), mask_target)
    if not truth.annotations:
        raise ValueError(f"{annotations} has no annotations: there is nothing to compare with")
    lists = None
    if split_lists:
        lists = {
            name: GroundTruth.from_records(*load_occluded_coco(str(path), "")) for name, path in split_lists.items()
        }
    return evaluate_results(
        truth,
        load_results(results, truth),
        source=str(results),
        score_threshold=score_threshold,
        max_detections=max_detections,
        split_lists=lists,
    )


def ground_truth_of(
    dataset: str | tuple[Sequence[ImageRecord], DatasetInfo], mask_target: str = "visible"
) -> GroundTruth:
    """What a data set's detections are compared with.

    Args:
        dataset: a COCO annotation file, a data set's name or spec, or a data set that was read already
            (`bcnet.data.load_dataset`).
        mask_target: "visible" or "amodal". A test set without annotations is the same for both.

    Raises:
        FileNotFoundError, KeyError, ValueError: it cannot be read; or not every annotation has an amodal mask.
    """
    if not isinstance(dataset, str):
        truth = GroundTruth.from_records(*dataset)
    elif os.path.isfile(dataset):
        truth = GroundTruth.from_file(dataset)
    else:
        truth = GroundTruth.from_records(*load_dataset(dataset))
    return truth.amodal() if mask_target == "amodal" and truth.annotations else truth
