"""COCO matching of detections to ground-truth instances: by descending score, each instance once, same class."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bcnet.evaluation.coco_api import ground_truth_to_coco, results_to_coco
from bcnet.evaluation.ground_truth import GroundTruth


@dataclass(frozen=True)
class ClassMatches:
    """Matches of one class in one image at one IoU threshold.

    Letters: D detections.

    Attributes:
        category_id: the class.
        results: positions of the D detections in the results, by descending score.
        annotation_ids: int64 [D], ``id`` of the matched annotation in `GroundTruth.annotations`; 0 where there is none.
        ignored: bool [D], detections that are neither true nor false positives.
        instances: number of instances that are not ignored.
    """

    category_id: int
    results: list[int]
    annotation_ids: np.ndarray
    ignored: np.ndarray
    instances: int


def matched_images(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    iou_type: Literal["segm", "bbox"] = "segm",
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> Iterator[ClassMatches]:
    """pycocotools' matches of each image and class in which there is a detection or an instance.

    Args:
        ground_truth: with annotations.
        results: COCO result dicts.
        iou_type: "segm" or "bbox".
        iou_threshold: lowest IoU of a match.
        max_detections: highest scoring detections per image and class that are matched.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = COCOeval(
            ground_truth_to_coco(ground_truth, coco_class=COCO),
            results_to_coco(ground_truth, results, iou_type, COCO),
            iou_type,
        )
        evaluation.params.iouThrs = np.array([iou_threshold])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
    for image in evaluation.evalImgs:
        if image is not None:
            yield ClassMatches(
                category_id=image["category_id"],
                results=[number - 1 for number in image["dtIds"]],
                annotation_ids=np.asarray(image["dtMatches"])[0].astype(np.int64),
                ignored=np.asarray(image["dtIgnore"])[0].astype(bool),
                instances=int((~np.asarray(image["gtIgnore"]).astype(bool)).sum()),
            )


def match_instances(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> dict[int, dict]:
    """The result that is matched to each instance by mask IoU, by the annotation's ``id``.

    Instances that are not detected, crowds and completely occluded instances are absent.
    """
    kept = [result for result in results if result["score"] >= score_threshold]
    matched = {}
    for matches in matched_images(ground_truth, kept, "segm", iou_threshold, max_detections):
        rows = zip(matches.results, matches.annotation_ids.tolist(), matches.ignored.tolist(), strict=True)
        for index, annotation_id, ignored in rows:
            if annotation_id > 0 and not ignored:
                matched[annotation_id] = kept[index]
    return matched
