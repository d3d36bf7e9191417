"""Evaluation of a results file against an annotation file, without a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from bcnet.data import DatasetInfo, ImageRecord, load_dataset
from bcnet.data.occluded_coco import load_occluded_coco
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.metrics import evaluate_results
from bcnet.evaluation.olac import read_olac_labels
from bcnet.evaluation.registry import METRIC_REGISTRY
from bcnet.evaluation.results import read_results


def evaluate_files(
    annotations: str | os.PathLike,
    results: str | os.PathLike,
    score_threshold: float = 0.5,
    max_detections: int = 100,
    *,
    mask_target: str = "visible",
    split_lists: Mapping[str, str | os.PathLike] | None = None,
    olac_labels: str | os.PathLike | None = None,
    metrics: Sequence[str] = (),
    class_agnostic: bool = False,
) -> dict:
    """Computes the metrics of a results file; see `evaluate_results` for what they are.

    Args:
        annotations: COCO annotation file with annotations; or the name or spec of a data set
            (`bcnet.data.load_dataset`), for other formats.
        results: COCO results file (`read_results`).
        score_threshold: of the detections that are counted.
        max_detections: highest scoring detections per image and class that count.
        mask_target: "visible", or "amodal" to compare with ``amodal_segmentation``: for models with amodal
            targets (``INPUT.MASK_TARGET``).
        split_lists: files of the published lists of objects of COCO val2017, by the names "occluded" and
            "separated".
        olac_labels: COCO-OLAC's file (`read_olac_labels`).
        metrics: names in `METRIC_REGISTRY`; none chooses all.
        class_agnostic: compare without categories, which the results then need not have: boxes and masks alone.

    Raises:
        FileNotFoundError, KeyError, ValueError: as `ground_truth_of`, `read_results` and `evaluate_results`.
    """
    METRIC_REGISTRY.chosen(metrics)
    truth = ground_truth_of(str(annotations), mask_target)
    if not truth.annotations:
        raise ValueError(f"{annotations} has no annotations: there is nothing to compare with")
    lists = {
        name: GroundTruth.from_records(*load_occluded_coco(str(path), "")) for name, path in (split_lists or {}).items()
    }
    if class_agnostic:
        truth = truth.without_classes()
        lists = {name: chosen.without_classes() for name, chosen in lists.items()}
    return evaluate_results(
        truth,
        read_results(results, truth),
        source=str(results),
        score_threshold=score_threshold,
        max_detections=max_detections,
        split_lists=lists or None,
        olac_labels=None if olac_labels is None else read_olac_labels(olac_labels),
        metrics=metrics,
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
    if isinstance(dataset, str) and os.path.isfile(dataset):
        truth = GroundTruth.from_file(dataset)
    else:
        truth = GroundTruth.from_records(*(load_dataset(dataset) if isinstance(dataset, str) else dataset))
    return truth.amodal() if mask_target == "amodal" and truth.annotations else truth
