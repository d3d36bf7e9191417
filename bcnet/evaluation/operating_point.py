"""Precision, recall and true and false positives per class at one score threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bcnet.data.classes import class_labels
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.matching import matched_images


def operating_point(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    iou_type: str = "segm",
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> dict:
    """Right, false and missed detections per class among those at or above a score.

    Matching is COCO's: by descending score, each instance once, same class. A detection on a crowd region is ignored.

    Args:
        ground_truth: with annotations.
        results: COCO result dicts.
        iou_type: "segm" or "bbox".

    Returns:
        dict: the three settings, and in ``total`` and per name in ``classes`` the counts ``true_positives,
        false_positives, false_negatives`` and ``precision``, ``recall`` in percent (nan where nothing was
        detected or nothing is there). Classes without either are left out.
    """
    kept = [result for result in results if result["score"] >= score_threshold]
    counts = {category_id: [0, 0, 0] for category_id in ground_truth.category_ids}
    for image in matched_images(ground_truth, kept, iou_type, iou_threshold, max_detections):
        counted = ~image["dtIgnore"][0].astype(bool)
        matched = image["dtMatches"][0] > 0
        instances = int((~image["gtIgnore"].astype(bool)).sum())
        right = int((matched & counted).sum())
        totals = counts[image["category_id"]]
        totals[0] += right
        totals[1] += int((~matched & counted).sum())
        totals[2] += instances - right
    labels = class_labels(ground_truth.class_names, ground_truth.category_ids)
    names = dict(zip(ground_truth.category_ids, labels, strict=True))
    return {
        "score_threshold": score_threshold,
        "iou_threshold": iou_threshold,
        "iou_type": iou_type,
        "total": _rates(*(sum(column) for column in zip(*counts.values(), strict=True))),
        "classes": {names[category_id]: _rates(*values) for category_id, values in counts.items() if any(values)},
    }


def _rates(right: int, false: int, missed: int) -> dict[str, int | float]:
    return {
        "true_positives": right,
        "false_positives": false,
        "false_negatives": missed,
        "precision": 100 * right / (right + false) if right + false else math.nan,
        "recall": 100 * right / (right + missed) if right + missed else math.nan,
    }
