"""Computes every registered metric that ground truth and results allow, and registers the built-in ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from bcnet.evaluation.average_precision import average_precision
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.evaluation.hidden_part import amodal_miou, has_amodal_masks, hidden_part_iou
from bcnet.evaluation.occlusion import occlusion_average_precision, overlap_average_precision
from bcnet.evaluation.olac import olac_average_precision
from bcnet.evaluation.operating_point import operating_point as count_at_score
from bcnet.evaluation.order import occlusion_order_accuracy
from bcnet.evaluation.registry import METRIC_REGISTRY, MetricInputs
from bcnet.evaluation.report import (
    format_hidden_part,
    format_miou,
    format_occlusion,
    format_olac,
    format_order,
    format_overlap,
    format_recall,
)
from bcnet.evaluation.split_recall import split_recall
from bcnet.words import counted

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
    olac_labels: Mapping[str, str] | None = None,
    metrics: Sequence[str] = (),
) -> dict:
    """Computes the registered metrics; those that need missing annotations or results are skipped.

    Boxes and masks are compared with the ground truth's ``mask_target``: the visible objects, or the whole ones
    (`GroundTruth.amodal`).

    Args:
        ground_truth: with annotations.
        results: COCO result dicts of its images and categories, in the form of `uniform_results`.
        source: what to call the results in messages.
        score_threshold: of the detections in ``operating_point``, ``hidden_part`` and ``order``.
        max_detections: highest scoring detections per image and class that count. Results beyond it are counted in a
            warning.
        split_lists: the published lists of occluded and separated objects, see `split_recall`.
        with_masks: False for a detector of boxes alone, which shows in the results only if there are any.
        olac_labels: COCO-OLAC's occlusion level by file name without suffix, see `read_olac_labels`.
        metrics: names in `METRIC_REGISTRY`; none chooses all.

    Returns:
        dict: ``mask_target``; ``images``, ``annotations`` and ``results`` (counts); ``max_detections`` and
        ``results_cut``, how many results exceed it; and each metric under its name. Built in are ``bbox``; of masks
        ``segm``, ``boundary``, ``occlusion`` (`occlusion_average_precision`), ``overlap``
        (`overlap_average_precision`) and ``recall`` (`split_recall`); with `olac_labels` ``olac``
        (`olac_average_precision`); where there are amodal masks too, ``amodal``, the AP against them, ``hidden_part``
        (`hidden_part_iou`) and ``miou`` (`amodal_miou`), all of the results' ``amodal_segmentation``, or without it of
        the ``segmentation`` of a model with amodal targets; where the depth order is known and the results have
        relations ``order`` (`occlusion_order_accuracy`); and ``operating_point``.

    Raises:
        ValueError: no annotations; an unknown metric; a limit below 1; or neither boxes nor masks to compare.
    """
    chosen = METRIC_REGISTRY.chosen(metrics)
    inputs = MetricInputs(ground_truth, results, score_threshold, max_detections, split_lists, with_masks, olac_labels)
    _check(inputs, source)
    values: dict = {
        "mask_target": ground_truth.mask_target,
        "images": len(ground_truth.images),
        "annotations": len(ground_truth.annotations),
        "results": len(results),
        "max_detections": max_detections,
        "results_cut": _count_cut(inputs, source),
    }
    for metric in chosen:
        missing = [name for name in metric.requires if name not in inputs.available]
        if missing:
            level = logging.WARNING if metrics else logging.DEBUG
            logger.log(level, "The metric %r is skipped: there are no %s", metric.name, " and no ".join(missing))
            continue
        values[metric.name] = metric.compute(inputs)
        if not isinstance(values[metric.name], Mapping):
            raise ValueError(f"the metric {metric.name!r} must return a dict, got {values[metric.name]!r:.80}")
    return values


def _check(inputs: MetricInputs, source: str) -> None:
    truth = inputs.ground_truth
    if not truth.annotations:
        raise ValueError(f"{truth.source} has no annotations: there is nothing to compare with")
    if inputs.max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {inputs.max_detections}")
    if not inputs.results:
        logger.warning("There is not one detection in %s: every AP is zero", source)
    if not inputs.available & {"boxes", "masks"}:
        if not truth.all_have("segmentation"):
            raise ValueError(f"nothing to compare: {truth.source} has no masks, and {source} no boxes")
        raise ValueError(f"{source}: all results must have a bbox, or all must have a segmentation")


def _count_cut(inputs: MetricInputs, source: str) -> int:
    """How many results exceed the limit per image and class, with a warning if any does."""
    counts = Counter((result["image_id"], result["category_id"]) for result in inputs.results)
    limit = inputs.max_detections
    crowded = {key: count for key, count in counts.items() if count > limit}
    cut = sum(crowded.values()) - limit * len(crowded)
    if cut:
        logger.warning(
            "%s: %d of %d results are ignored: more than %d of a class (up to %d) in %s; raise the maximum number of "
            "detections to count them (--max-detections, TEST.DETECTIONS_PER_IMAGE)",
            *(source, cut, len(inputs.results), limit, max(crowded.values())),
            counted(len({image for image, _ in crowded}), "image"),
        )
    return cut


@METRIC_REGISTRY.register(requires=("boxes",))
def bbox(inputs: MetricInputs) -> dict:
    return average_precision(inputs.ground_truth, inputs.results, "bbox", inputs.max_detections)


@METRIC_REGISTRY.register(requires=("masks",))
def segm(inputs: MetricInputs) -> dict:
    return inputs.mask_average_precision


@METRIC_REGISTRY.register(requires=("masks",))
def boundary(inputs: MetricInputs) -> dict:
    return average_precision(inputs.ground_truth, inputs.results, "boundary", inputs.max_detections)


@METRIC_REGISTRY.register(requires=("masks", "amodal_masks"))
def amodal(inputs: MetricInputs) -> dict:
    truth, results = inputs.ground_truth, inputs.results
    if has_amodal_masks(results):
        results = [{**result, "segmentation": result["amodal_segmentation"]} for result in results]
    elif truth.mask_target == "amodal":
        return dict(inputs.mask_average_precision)
    amodal_truth = truth if truth.mask_target == "amodal" else truth.amodal()
    return average_precision(amodal_truth, results, "segm", inputs.max_detections)


@METRIC_REGISTRY.register(requires=("masks",), report=format_occlusion)
def occlusion(inputs: MetricInputs) -> dict:
    return occlusion_average_precision(inputs.ground_truth, inputs.results, max_detections=inputs.max_detections)


@METRIC_REGISTRY.register(requires=("masks",), report=format_overlap)
def overlap(inputs: MetricInputs) -> dict:
    return overlap_average_precision(inputs.ground_truth, inputs.results, max_detections=inputs.max_detections)


@METRIC_REGISTRY.register(requires=("olac_labels",), report=format_olac)
def olac(inputs: MetricInputs) -> dict:
    iou_type = "segm" if "masks" in inputs.available else "bbox"
    return olac_average_precision(
        inputs.ground_truth, inputs.results, inputs.olac_labels or {}, iou_type, inputs.max_detections
    )


@METRIC_REGISTRY.register(requires=("masks",), report=format_recall)
def recall(inputs: MetricInputs) -> dict:
    return split_recall(inputs.ground_truth, inputs.results, inputs.split_lists)


@METRIC_REGISTRY.register(requires=("masks", "amodal_masks"), report=format_hidden_part)
def hidden_part(inputs: MetricInputs) -> dict:
    return hidden_part_iou(inputs.ground_truth, inputs.matches)


@METRIC_REGISTRY.register(requires=("masks", "amodal_masks"), report=format_miou)
def miou(inputs: MetricInputs) -> dict:
    return amodal_miou(inputs.ground_truth, inputs.matches)


@METRIC_REGISTRY.register(requires=("masks", "depth_order", "relations"), report=format_order)
def order(inputs: MetricInputs) -> dict:
    return occlusion_order_accuracy(inputs.ground_truth, inputs.results, inputs.matches)


@METRIC_REGISTRY.register()
def operating_point(inputs: MetricInputs) -> dict:
    iou_type = "segm" if "masks" in inputs.available else "bbox"
    return count_at_score(
        inputs.ground_truth,
        inputs.results,
        iou_type,
        inputs.score_threshold,
        max_detections=inputs.max_detections,
    )
