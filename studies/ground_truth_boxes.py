"""Masks of each arm in ground-truth boxes, instance by instance: IoU, boundary IoU, amodal and hidden parts, order.

Letters: G instances of an image, C channels, S pooled side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from faster_coco_eval.core import mask as faster_mask
from pycocotools import mask as coco_mask
from torch import Tensor

from bcnet.bilayer import MaskHead, select_class
from bcnet.data import DatasetMapper
from bcnet.modeling import Detector
from bcnet.modeling.modes import evaluating
from bcnet.modeling.precision import autocast, autocast_dtype
from bcnet.occlusion.relations import relation_confidences
from bcnet.occlusion.rule import MIN_PIXELS
from bcnet.ops.boxes import resized_boxes
from bcnet.ops.rle import RLE, rle_difference, rle_intersection
from bcnet.structures import Detections
from studies.test_set import ImageTruth, read_test_set

METRICS = ("iou", "boundary_iou", "amodal_iou", "hidden_iou", "occluder_iou")
ESTIMATES = ("order_occluder", "order_hidden_part", "order_mean")


@torch.no_grad()
def pooled_test_rois(cfg, trunk: Detector, truths: Sequence[ImageTruth]) -> Iterator[Tensor]:
    """The pooled features of each image's ground-truth boxes, float [G, C, S, S], on the trunk's device.

    Raises:
        ValueError: the trunk has no mask branch.
    """
    branch = trunk.mask_branch
    if branch is None:
        raise ValueError(f"{type(trunk).__name__} has no mask branch (MODEL.MASK_ON is False)")
    mapper = DatasetMapper.from_config(cfg, training=False)
    for truth in truths:
        given = replace(truth.given, roi_scale=branch.roi_scale)
        with evaluating(trunk), autocast(trunk.device, autocast_dtype(cfg)):
            features, (size,) = trunk.features([mapper(truth.record)["image"]])
            boxes = resized_boxes(given.map_boxes, given.image_size, size).to(trunk.device)
            yield branch.pooler([features[name] for name in trunk.mask_features], [boxes])


@torch.no_grad()
def evaluate_arms(
    heads: Mapping[str, MaskHead],
    pooled: Iterable[Tensor],
    truths: Sequence[ImageTruth],
    *,
    roi_scale: float = 1.0,
    amp_dtype: torch.dtype | None = None,
) -> dict[str, dict[str, list[float]]]:
    """The values of every arm for every instance and pair of a test set.

    Args:
        heads: by arm.
        pooled: of each image, see `pooled_test_rois`.
        truths: the images, in the same order.
        roi_scale: see `Detections.roi_scale`.
        amp_dtype: precision of autocast.

    Returns:
        dict: by arm, of each of `METRICS` the values of all instances, and of each of `ESTIMATES` those of all pairs
        (100 where the order is right, else 0), in percent; NaN where the arm lacks the map, or has not learned it (loss
        weight 0), or the instance lacks the truth.
        ``iou`` and ``boundary_iou`` (Cheng et al., CVPR 2021, 2 % of the diagonal) are the visible mask's,
        ``hidden_iou`` that of what the amodal mask has outside the visible one, for instances with a hidden part, and
        ``occluder_iou`` the occluder mask's, for instances with an occluder.
    """
    values = {arm: {name: [] for name in (*METRICS, *ESTIMATES)} for arm in heads}
    for features, truth in zip(pooled, truths, strict=True):
        boundaries = [faster_mask.rleToBoundary(rle) for rle in truth.visible]
        for arm, head in heads.items():
            learned = [spec.name for spec in head.maps if spec.weight > 0]
            with evaluating(head), autocast(features.device, amp_dtype):
                logits = select_class(head(features.float(), learned), truth.given.classes.to(features.device))
            maps = {name: logit.float().sigmoid().cpu() for name, logit in logits.items()}
            detections = replace(truth.given, maps=maps, specs=head.maps, roi_scale=roi_scale)
            for name, column in (*_instances(detections, truth, boundaries), *_order(detections, truth)):
                values[arm][name] += column
    return values


def _instances(
    detections: Detections, truth: ImageTruth, boundaries: Sequence[RLE]
) -> Iterator[tuple[str, list[float]]]:
    masks = detections.mask_rles()
    yield "iou", list(map(iou, masks, truth.visible))
    yield "boundary_iou", [iou(faster_mask.rleToBoundary(m), b) for m, b in zip(masks, boundaries, strict=True)]
    absent = [math.nan] * len(detections)
    if truth.amodal is None or detections.amodal_mask is None:
        yield "amodal_iou", absent
        yield "hidden_iou", absent
    else:
        amodal = detections.mask_rles("occludee_amodal")
        yield "amodal_iou", list(map(iou, amodal, truth.amodal))
        found, hidden = list(map(rle_difference, amodal, masks)), list(map(rle_difference, truth.amodal, truth.visible))
        counts = [coco_mask.area(part) > MIN_PIXELS for part in hidden]
        yield "hidden_iou", [iou(f, h) if c else math.nan for f, h, c in zip(found, hidden, counts, strict=True)]
    if detections.occluder_mask is None:
        yield "occluder_iou", absent
    else:
        found = detections.mask_rles("occluder_mask")
        yield (
            "occluder_iou",
            [math.nan if o is None else iou(f, o) for f, o in zip(found, truth.occluders, strict=True)],
        )


def _order(detections: Detections, truth: ImageTruth) -> Iterator[tuple[str, list[float]]]:
    has_layer = detections.occluder_mask is not None
    estimates = relation_confidences(detections) if truth.pairs and has_layer else {}
    for name in ESTIMATES:
        confidence = estimates.get(name.removeprefix("order_"))
        yield (
            name,
            [math.nan] * len(truth.pairs)
            if confidence is None
            else [100.0 * bool(confidence[i, j] > confidence[j, i]) for i, j in truth.pairs],
        )


def maps_in_ground_truth_boxes(cfg, model: Detector, dataset: str) -> dict[str, float]:
    """The means (`means`) of a whole detector's maps in all ground-truth boxes, so that the order is that of all pairs.

    Args:
        dataset: spec of the test set.
    """
    truths = read_test_set(dataset)
    values = evaluate_arms(
        {"own": model.mask_branch.head},  # pyright: ignore[reportOptionalMemberAccess]
        pooled_test_rois(cfg, model, truths),
        truths,
        roi_scale=cfg.MODEL.ROI_MASK_HEAD.ROI_SCALE,
        amp_dtype=autocast_dtype(cfg),
    )
    return means(values["own"])


def iou(first: RLE, second: RLE) -> float:
    """IoU of two masks in percent; NaN if both are empty."""
    common = int(coco_mask.area(rle_intersection(first, second)))
    union = int(coco_mask.area(first)) + int(coco_mask.area(second)) - common
    return 100 * common / union if union else math.nan


def means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean of each column over what is not NaN; columns without a value are left out."""
    arrays = {name: np.asarray(column, dtype=float) for name, column in values.items()}
    return {name: float(np.nanmean(a)) for name, a in arrays.items() if np.isfinite(a).any()}
