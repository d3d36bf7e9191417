"""IoU of the hidden part of objects, and mIoU of whole and hidden parts as amodal completion papers report it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.evaluation.ground_truth import GroundTruth, visible_mask
from bcnet.occlusion.rule import MIN_PIXELS
from bcnet.ops.rle import RLE, segmentation_to_rle


def amodal_miou(ground_truth: GroundTruth, matches: Mapping[int, dict]) -> dict[str, float]:
    """Mean IoU of whole objects and of hidden parts: mIoU_full and mIoU_occ of the amodal completion literature.

    The definitions are those of C2F-Seg's evaluation (Gao et al., ICCV 2023): IoU of the amodal masks; and IoU of what
    of both lies outside the annotated visible mask, over the objects of which a pixel is hidden. On KINS, its objects
    are those that AISFormer and VRSP both detect. Here they are those that the evaluated detector finds, matched as in
    COCO at a mask IoU of 0.5 (`match_instances`): two detectors have figures of different objects, compare ``found``.

    Args:
        ground_truth, matches: as of `hidden_part_iou`.

    Returns:
        dict: ``instances`` and how many are ``found``; ``full``, the mean IoU of the latter; ``hidden_instances`` and
        ``hidden_found``, those with a hidden pixel; ``hidden``, the mean IoU of the latter's hidden parts. In percent.
    """
    instances = ground_truth.instances()
    ious = []
    for annotation in instances:
        if annotation["id"] in matches:
            image_id = ground_truth.image_id(annotation)
            detected = detected_amodal_mask(matches[annotation["id"]], ground_truth.image_size(image_id))
            amodal = ground_truth.rle(annotation["amodal_segmentation"], image_id)
            ious.append(float(np.asarray(coco_mask.iou([detected], [amodal], [0]))[0, 0]))
    hidden = hidden_part_iou(ground_truth, matches, min_pixels=0)
    return {
        "instances": len(instances),
        "found": len(ious),
        "full": 100 * sum(ious) / len(ious) if ious else math.nan,
        "hidden_instances": hidden["instances"],
        "hidden_found": hidden["found"],
        "hidden": hidden["iou_found"],
    }


def detected_amodal_mask(result: dict, image_size: tuple[int, int]) -> RLE:
    """The whole object of a result as compressed RLE: its ``amodal_segmentation``, or else its ``segmentation``."""
    return segmentation_to_rle(result.get("amodal_segmentation") or result["segmentation"], *image_size)


def hidden_part_iou(
    ground_truth: GroundTruth, matches: Mapping[int, dict], min_pixels: int = MIN_PIXELS
) -> dict[str, float]:
    """IoU of the detected and the annotated hidden part, the amodal mask outside the visible mask.

    The detected hidden part is the result's ``amodal_segmentation`` outside its ``segmentation``. A result with one
    mask alone does not say where the visible part ends, so the annotated visible mask is cut out of it (as in the
    amodal completion literature, "mIoU of the occluded region"). A mask that spills over the visible outline where
    nothing is hidden lowers it.

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
            detected = _hidden_part(matches[annotation["id"]], visible, ground_truth.image_size(image_id))
            common = _area_outside(coco_mask.merge([detected, amodal], intersect=True), visible)
            ious.append(common / (int(coco_mask.area(detected)) + hidden - common))
    return {
        "instances": count,
        "found": len(ious),
        "iou_found": 100 * sum(ious) / len(ious) if ious else math.nan,
        "iou": 100 * sum(ious) / count if count else math.nan,
    }


def has_amodal_masks(results: Sequence[dict]) -> bool:
    """Whether the results have amodal masks beside the visible ones; they may be none."""
    return all("amodal_segmentation" in result for result in results)


def _hidden_part(result: dict, visible: RLE, size: tuple[int, int]) -> RLE:
    """The detected hidden part: the result's amodal mask outside its own visible one, or outside the annotated one."""
    whole = segmentation_to_rle(result.get("amodal_segmentation", result["segmentation"]), *size)
    seen = segmentation_to_rle(result["segmentation"], *size) if "amodal_segmentation" in result else visible
    return coco_mask.encode(coco_mask.decode(whole) & (1 - coco_mask.decode(seen)))


def _area_outside(rle: RLE, other: RLE) -> int:
    return int(coco_mask.area(rle)) - int(coco_mask.area(coco_mask.merge([rle, other], intersect=True)))
