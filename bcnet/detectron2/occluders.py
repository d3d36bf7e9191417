"""Occluder masks from the ground truth of a batch, for detectron2 users with their own dataset mapper.

Letters: G instances, N RoIs, H x W network input.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.logger import log_first_n
from pycocotools import mask as coco_mask

from bcnet.occlusion import occluder_rles
from bcnet.ops.rle import RLE, segmentation_to_rle


def add_occluder_masks(instances: Instances) -> Instances:
    """Sets ``gt_occluder_masks`` (BitMasks [G, H, W], on the boxes' device) of one image's ground truth.

    The occluder rule is applied to the given instances. After augmentation this approximates what `BCNetDatasetMapper`
    derives from the original annotations: masks are cropped and resampled, the rule's limit of 20 pixels counts resized
    pixels, and objects removed by the augmentation occlude nothing.

    Args:
        instances: with ``gt_boxes`` and ``gt_masks`` (BitMasks or PolygonMasks) of all objects of an image.

    Returns:
        Instances: the same object.

    Raises:
        TypeError: ``gt_masks`` of another type.
    """
    instances.gt_occluder_masks = _occluder_masks(instances.gt_boxes, instances.gt_masks, instances.image_size)
    return instances


def occluder_masks_of_rois(rois: Instances) -> BitMasks:
    """The occluder mask of each RoI's object, from the matched objects of an image's RoIs.

    RoI heads repeat an object's ground truth for each of its RoIs, which include ground-truth boxes; an object without
    RoIs in the batch occludes nothing.

    Args:
        rois: one image's, with ``gt_boxes``, ``gt_classes`` and ``gt_masks`` of the matched objects.

    Returns:
        BitMasks: [N, H, W].
    """
    log_first_n(
        logging.WARNING,
        "The batch has no gt_occluder_masks: they are derived from its gt_masks, which is slower and, after "
        "augmentation, approximate. BCNetDatasetMapper provides them.",
        name=__name__,
    )
    boxes = rois.gt_boxes.tensor
    # Objects are identified by box, class and area.
    area = _areas(rois.gt_masks).to(boxes)
    identity = torch.cat([boxes, rois.gt_classes[:, None].to(boxes), area[:, None]], dim=1)
    _, objects = torch.unique(identity, dim=0, return_inverse=True)
    # One RoI of each object represents it.
    representative = torch.zeros(int(objects.max()) + 1, dtype=torch.int64, device=boxes.device)
    representative[objects] = torch.arange(len(rois), device=boxes.device)
    masks = _occluder_masks(rois.gt_boxes[representative], rois.gt_masks[representative], rois.image_size)
    return masks[objects]


def _areas(masks: BitMasks | PolygonMasks) -> torch.Tensor:
    return masks.area() if isinstance(masks, PolygonMasks) else masks.tensor.flatten(1).sum(dim=1)


def _occluder_masks(boxes: Boxes, masks: BitMasks | PolygonMasks, image_size: tuple[int, int]) -> BitMasks:
    xyxy = boxes.tensor.detach().cpu().double().numpy()
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    derived = occluder_rles(xywh, _rles(masks, image_size), [False] * len(xywh), image_size)
    return bit_masks(derived, image_size).to(boxes.device)


def _rles(masks: BitMasks | PolygonMasks, image_size: tuple[int, int]) -> list[RLE]:
    if isinstance(masks, BitMasks):
        array = masks.tensor.cpu().numpy().astype(np.uint8)
        return [coco_mask.encode(np.asfortranarray(mask)) for mask in array]
    if isinstance(masks, PolygonMasks):
        empty = coco_mask.encode(np.zeros(image_size, dtype=np.uint8, order="F"))
        return [segmentation_to_rle(polygons, *image_size) if polygons else empty for polygons in masks.polygons]
    raise TypeError(
        f"occluders can be derived from gt_masks of type BitMasks or PolygonMasks, got {type(masks).__name__}; let the "
        "data mapper set gt_occluder_masks"
    )


def bit_masks(rles: Sequence[RLE | None], image_size: tuple[int, int]) -> BitMasks:
    """BitMasks [G, H, W] of compressed RLEs; None is an empty mask."""
    masks = torch.zeros(len(rles), *image_size, dtype=torch.bool)
    for mask, rle in zip(masks, rles, strict=True):
        if rle is not None:
            mask[:] = torch.from_numpy(coco_mask.decode(rle)).bool()
    return BitMasks(masks)
