"""All that can be said about the results of a data set, in one dict."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from bcnet.evaluation.average_precision import average_precision
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.hidden_part import hidden_part_iou
from bcnet.evaluation.matching import match_instances
from bcnet.evaluation.occlusion import occlusion_average_precision, overlap_average_precision
from bcnet.evaluation.operating_point import operating_point
from bcnet.evaluation.order import has_relations, occlusion_order_accuracy
from bcnet.evaluation.split_recall import split_recall

logger = logging.getLogger(__name__)


def evaluate_results(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    *,
    source: str = "results",
    score_threshold: float = 0.5,
    max_detections: int = 100,
    split_lists: Mapping[str, GroundTruth] | None = None,
    with_masks: bool = True,
) -> dict:
    """All metrics that ground truth and results allow.

    Boxes and masks are compared with what the ground truth asks for, ``mask_target``: the visible objects, or the
    whole ones (`GroundTruth.amodal`).

    Args:
        ground_truth: with annotations.
        results: COCO result dicts of its images and categories.
        source: what to call the results in messages.
        score_threshold: of the detections in ``operating_point``, ``hidden_part`` and ``order``.
        max_detections: highest scoring detections per image and class that count.
        split_lists: the published lists of occluded and separated objects, see `split_recall`.
        with_masks: False for a detector of boxes alone, which shows in the results only if there are any.

    Returns:
        dict: ``mask_target``; ``images``, ``annotations`` and ``results`` (counts); where the results have boxes
        ``bbox``; where they and the annotations have masks ``segm``, ``boundary``, ``occlusion``
        (`occlusion_average_precision`), ``overlap`` (`overlap_average_precision`) and ``recall``
        (`split_recall`); where there are amodal masks too, ``amodal``, the AP of the detected masks against
        them, and ``hidden_part`` (`hidden_part_iou`), both of which ask for a model with amodal targets; where the
        order of depth is known and the results have relations ``order`` (`occlusion_order_accuracy`); and
        ``operating_point``.

    Raises:
        ValueError: no annotations; or some of the results have boxes, or masks, and others do not.
    """
    truth = ground_truth
    if not truth.annotations:
        raise ValueError(f"{truth.source} has no annotations: there is nothing to compare with")
    if not results:
        logger.warning("There is not one detection in %s: every AP is zero", source)
    has_boxes = all("bbox" in result for result in results)
    has_masks = all("segmentation" in result for result in results) and truth.all_have("segmentation") and with_masks
    if not has_boxes and not has_masks:
        raise ValueError(f"{source}: all results must have a bbox, or all must have a segmentation")
    metrics: dict = {
        "mask_target": truth.mask_target,
        "images": len(truth.images),
        "annotations": len(truth.annotations),
        "results": len(results),
    }
    limit = {"max_detections": max_detections}
    if has_boxes:
        metrics["bbox"] = average_precision(truth, results, "bbox", **limit)
    if has_masks:
        has_amodal = truth.all_have("amodal_segmentation")
        metrics["segm"] = average_precision(truth, results, "segm", **limit)
        metrics["boundary"] = average_precision(truth, results, "boundary", **limit)
        if has_amodal:
            is_target = truth.mask_target == "amodal"
            metrics["amodal"] = (
                dict(metrics["segm"]) if is_target else average_precision(truth.amodal(), results, "segm", **limit)
            )
        metrics["occlusion"] = occlusion_average_precision(truth, results, **limit)
        metrics["overlap"] = overlap_average_precision(truth, results, **limit)
        metrics["recall"] = split_recall(truth, results, split_lists)
        knows_order = truth.has_order and has_relations(results)
        matches = match_instances(truth, results, score_threshold, **limit) if has_amodal or knows_order else {}
        if has_amodal:
            metrics["hidden_part"] = hidden_part_iou(truth, matches)
        if knows_order:
            metrics["order"] = occlusion_order_accuracy(truth, results, matches)
    metrics["operating_point"] = operating_point(
        truth, results, "segm" if has_masks else "bbox", score_threshold, max_detections=max_detections
    )
    return metrics
