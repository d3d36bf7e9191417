"""Precision, recall and true and false positives per class at one score threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from bcnet.data.classes import class_labels
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.matching import matched_images


def operating_point(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    iou_type: Literal["segm", "bbox"] = "segm",
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> dict:
    """Counts true positives, false positives and false negatives per class at or above a score.

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
    for matches in matched_images(ground_truth, kept, iou_type, iou_threshold, max_detections):
        matched = matches.annotation_ids > 0
        true_positives = int((matched & ~matches.ignored).sum())
        totals = counts[matches.category_id]
        totals[0] += true_positives
        totals[1] += int((~matched & ~matches.ignored).sum())
        totals[2] += matches.instances - true_positives
    labels = class_labels(ground_truth.class_names, ground_truth.category_ids)
    names = dict(zip(ground_truth.category_ids, labels, strict=True))
    return {
        "score_threshold": score_threshold,
        "iou_threshold": iou_threshold,
        "iou_type": iou_type,
        "total": _rates(*(sum(column) for column in zip(*counts.values(), strict=True))),
        "classes": {names[category_id]: _rates(*values) for category_id, values in counts.items() if any(values)},
    }


def _rates(true_positives: int, false_positives: int, false_negatives: int) -> dict[str, int | float]:
    detections, instances = true_positives + false_positives, true_positives + false_negatives
    return {
        "true_positives": true_positives,
        "false_positives": false_positives,
        "false_negatives": false_negatives,
        "precision": 100 * true_positives / detections if detections else math.nan,
        "recall": 100 * true_positives / instances if instances else math.nan,
    }
