"""IoU of the hidden part of objects."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pycocotools import mask as coco_mask

from bcnet.evaluation.ground_truth import GroundTruth, visible_mask
from bcnet.occlusion.rule import MIN_PIXELS
from bcnet.ops.rle import RLE, segmentation_to_rle


def hidden_part_iou(
    ground_truth: GroundTruth, matches: Mapping[int, dict], min_pixels: int = MIN_PIXELS
) -> dict[str, float]:
    """IoU of the detected and the amodal mask outside the visible mask.

    A detected mask does not say where the visible part ends, so the annotated visible mask is cut out of both (as in
    the amodal completion literature, "mIoU of the occluded region"). A mask that exceeds the visible outline
    where nothing is occluded lowers it.

    Args:
        ground_truth: with ``amodal_segmentation`` in every annotation; visible or amodal (`GroundTruth.amodal`).
        matches: the result of each detected instance (`match_instances`).
        min_pixels: an instance counts if more of its pixels are hidden.

    Returns:
        dict: number of ``instances`` with a hidden part, and of those detected, ``found``; ``iou_found``, the mean over
        the latter, and ``iou``, the mean over all with 0 for those not detected, in percent.
    """
    count, ious = 0, []
    for annotation in ground_truth.instances():
        image_id = ground_truth.image_id(annotation)
        visible = visible_mask(annotation)
        amodal = ground_truth.rle(annotation["amodal_segmentation"], image_id)
        hidden = _area_outside(amodal, visible)
        if hidden <= min_pixels:
            continue
        count += 1
        if annotation["id"] in matches:
            detected = segmentation_to_rle(
                matches[annotation["id"]]["segmentation"], *ground_truth.image_size(image_id)
            )
            common = _area_outside(coco_mask.merge([detected, amodal], intersect=True), visible)
            union = _area_outside(detected, visible) + hidden - common
            ious.append(common / union)
    return {
        "instances": count,
        "found": len(ious),
        "iou_found": 100 * sum(ious) / len(ious) if ious else math.nan,
        "iou": 100 * sum(ious) / count if count else math.nan,
    }


def _area_outside(rle: RLE, other: RLE) -> int:
    return int(coco_mask.area(rle)) - int(coco_mask.area(coco_mask.merge([rle, other], intersect=True)))
