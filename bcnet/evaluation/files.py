"""Everything that can be said about a results file, from the files alone."""

from __future__ import annotations

import json
import logging
import os

from bcnet.evaluation.average_precision import average_precision
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.occlusion import occlusion_average_precision
from bcnet.evaluation.operating_point import operating_point

logger = logging.getLogger(__name__)


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
) -> dict:
    """All metrics of a results file.

    Args:
        annotations: COCO annotation file with annotations.
        results: COCO results file.
        score_threshold: of the counts in ``operating_point``.

    Returns:
        dict: ``images``, ``annotations`` and ``results`` (counts); ``bbox`` where the results have boxes; where
        they have masks ``segm``, ``boundary``, ``occlusion`` (`occlusion_average_precision`) and, where the
        annotations have ``amodal_segmentation``, ``amodal``: the AP of the same detected masks against the
        amodal ones (it asks for a model with amodal targets, ``INPUT.MASK_TARGET: "amodal"``); ``operating_point``.

    Raises:
        FileNotFoundError, ValueError: as `GroundTruth.from_file` and `load_results`; or no annotations.
    """
    truth = GroundTruth.from_file(annotations)
    if not truth.annotations:
        raise ValueError(f"{annotations} has no annotations: there is nothing to compare with")
    loaded = load_results(results, truth)
    metrics: dict = {
        "images": len(truth.images),
        "annotations": len(truth.annotations),
        "results": len(loaded),
    }
    if not loaded:
        logger.warning("%s holds no results: every AP is zero", results)
    has_boxes = all("bbox" in result for result in loaded)
    has_masks = all("segmentation" in result for result in loaded) and truth.all_have("segmentation")
    if not has_boxes and not has_masks:
        raise ValueError(f"{results}: all results must have a bbox, or all must have a segmentation")
    if has_boxes:
        metrics["bbox"] = average_precision(truth, loaded, "bbox", max_detections)
    if has_masks:
        metrics["segm"] = average_precision(truth, loaded, "segm", max_detections)
        metrics["boundary"] = average_precision(truth, loaded, "boundary", max_detections)
        metrics["occlusion"] = occlusion_average_precision(truth, loaded, max_detections=max_detections)
        if truth.all_have("amodal_segmentation"):
            metrics["amodal"] = average_precision(truth.amodal(), loaded, "segm", max_detections)
    metrics["operating_point"] = operating_point(
        truth, loaded, "segm" if has_masks else "bbox", score_threshold, max_detections=max_detections
    )
    return metrics
