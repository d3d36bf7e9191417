"""Average precision with faster-coco-eval: COCO's definition, several times faster than pycocotools.

Letters: T IoU thresholds, R recall thresholds, K classes, A object sizes, P limits of detections per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import replace

import numpy as np
from faster_coco_eval import COCOeval_faster

from bcnet.data.classes import class_labels
from bcnet.evaluation.coco_api import ground_truth_to_coco, results_to_coco
from bcnet.evaluation.ground_truth import IGNORED_AREA, GroundTruth

SIZE_RANGES = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e5**2)}
IOU_TYPES = ("bbox", "segm", "boundary")
SUMMARY = ("AP", "AP50", "AP75")


def average_precision(
    ground_truth: GroundTruth, results: Sequence[dict], iou_type: str = "segm", max_detections: int = 100
) -> dict[str, float]:
    """COCO's AP of results, overall, by size and per class.

    Args:
        ground_truth: with annotations.
        results: COCO result dicts with ``bbox`` (for "bbox") or ``segmentation`` (for "segm", "boundary").
        iou_type: what is compared: "bbox", "segm", or "boundary": the smaller of mask IoU and boundary IoU
            with a band of 2 % of the image's diagonal (Cheng et al., Boundary IoU, CVPR 2021).
        max_detections: highest scoring detections per image and class that count.

    Returns:
        dict: ``AP, AP50, AP75, APs, APm, APl`` and ``AP-<class>`` in percent; nan where there is no ground truth.
        Classes of one name have their category id in the key: ``AP-<class> (id <category id>)``.
    """
    evaluation = _evaluate(ground_truth, results, iou_type, max_detections)
    precision = evaluation.eval["precision"][..., -1]  # [T, R, K, A, P] at the largest limit
    metrics = _summary(precision[..., 0])
    for index, name in enumerate(SIZE_RANGES, start=1):
        metrics[f"AP{name}"] = _mean(precision[..., index])
    for index, label in enumerate(class_labels(ground_truth.class_names, ground_truth.category_ids)):
        metrics[f"AP-{label}"] = _mean(precision[:, :, index, 0])
    return metrics


def subset_average_precision(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    member: Callable[[dict], bool],
    iou_type: str = "segm",
    max_detections: int = 100,
) -> dict[str, float]:
    """``AP, AP50, AP75`` in percent over the annotations for which `member` is true.

    An instance outside the subset is ignored: neither a false negative nor a false positive, as COCO treats objects
    outside a range of sizes. A detection that matches nothing is a false positive in every subset.
    """

    def change(annotation: dict) -> dict:
        asked = annotation["area"] < IGNORED_AREA and member(annotation)
        return {**annotation, "area": 1.0 if asked else IGNORED_AREA}

    evaluation = _evaluate(ground_truth, results, iou_type, max_detections, change)
    return _summary(evaluation.eval["precision"][:, :, :, 0, -1])


def images_average_precision(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    numbers: Set[int],
    iou_type: str = "segm",
    max_detections: int = 100,
) -> dict[str, float]:
    """``AP, AP50, AP75`` in percent over the images of these numbers (`GroundTruth.image_numbers`)."""
    metrics = average_precision(
        replace(ground_truth, annotations=[a for a in ground_truth.annotations if a["image_id"] in numbers]),
        [result for result in results if ground_truth.image_numbers[result["image_id"]] in numbers],
        iou_type,
        max_detections,
    )
    return {name: metrics[name] for name in SUMMARY}


def _evaluate(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    iou_type: str,
    max_detections: int,
    change: Callable[[dict], dict] | None = None,
) -> COCOeval_faster:
    if iou_type not in IOU_TYPES:
        raise ValueError(f"iou_type is {iou_type!r}; it must be one of {', '.join(IOU_TYPES)}")
    evaluation = COCOeval_faster(
        ground_truth_to_coco(ground_truth, change),
        results_to_coco(ground_truth, results, iou_type),
        iou_type,
        ranges={name: list(limits) for name, limits in SIZE_RANGES.items()},
        print_function=_quiet,
    )
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    # The evaluator sorts the categories; bring the classes back into their own order.
    order = np.argsort(np.argsort(ground_truth.category_ids))
    evaluation.eval["precision"] = np.asarray(evaluation.eval["precision"])[:, :, order]
    return evaluation


def _quiet(*_args) -> None:
    pass


def _summary(precision: np.ndarray) -> dict[str, float]:
    """From precision [T, R, K] at thresholds 0.50, 0.55, ..., 0.95."""
    return {"AP": _mean(precision), "AP50": _mean(precision[0]), "AP75": _mean(precision[5])}


def _mean(precision: np.ndarray) -> float:
    defined = precision[precision > -1]
    return 100 * float(defined.mean()) if defined.size else math.nan
