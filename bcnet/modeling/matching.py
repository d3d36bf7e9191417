"""Matching of anchors and proposals to ground-truth boxes by IoU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

BELOW, BETWEEN = Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS
# Pairs of boxes at once: all anchors of an image of 800 x 1333 with 15 objects. More are matched part by part, because
# the IoUs of a crowd take gigabytes, and most of its pairs are far from each other.
MAX_PAIRS = 2**22
_BOXES_AT_ONCE = 4096  # on the CPU: some rows of anchors, whose IoUs stay in its caches


def match_boxes(matcher: Matcher, gt_boxes: Tensor, boxes: Tensor) -> Tensor:
    """torchvision's matcher, extended to images without ground truth and, with the same result, to crowds.

    Returns:
        Tensor: int64 [len(boxes)], index of the matched ground-truth box; BELOW or BETWEEN where the IoU is
            below or between the thresholds.
    """
    if len(gt_boxes) == 0 or len(boxes) == 0:
        return torch.full((len(boxes),), BELOW, dtype=torch.int64, device=boxes.device)
    if len(gt_boxes) * len(boxes) <= MAX_PAIRS:
        return matcher(box_iou(gt_boxes, boxes))
    on_cpu = boxes.device.type == "cpu"
    parts = boxes.split(_BOXES_AT_ONCE if on_cpu else max(MAX_PAIRS // len(gt_boxes), 1))
    everything = torch.arange(len(gt_boxes), device=boxes.device)
    # On a GPU asking for the near ones would make the host wait.
    near = [_touching(gt_boxes, part) if on_cpu else everything for part in parts]
    best = _best_iou(gt_boxes, parts, near)
    if on_cpu and not best.all():  # the best boxes of an object that touches none are all
        near = [everything] * len(parts)
    return torch.cat([_match_part(matcher, gt_boxes, p, n, best) for p, n in zip(parts, near, strict=True)])


def _touching(gt_boxes: Tensor, boxes: Tensor) -> Tensor:
    """The ground-truth boxes that overlap the box around all boxes: int64 [n], ascending."""
    low, high = boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)
    return torch.nonzero(((gt_boxes[:, 2:] > low) & (gt_boxes[:, :2] < high)).all(dim=1))[:, 0]


def _best_iou(gt_boxes: Tensor, parts: Sequence[Tensor], near: Sequence[Tensor]) -> Tensor:
    """The highest IoU of each ground-truth box with any box, float [G]."""
    best = gt_boxes.new_zeros(len(gt_boxes))
    for boxes, chosen in zip(parts, near, strict=True):
        if len(chosen):
            best[chosen] = torch.maximum(best[chosen], box_iou(gt_boxes[chosen], boxes).amax(dim=1))
    return best


def _match_part(matcher: Matcher, gt_boxes: Tensor, boxes: Tensor, chosen: Tensor, best: Tensor) -> Tensor:
    """The matches of some boxes with the chosen ground-truth boxes, whose best IoU with all boxes is known."""
    if not len(chosen):
        return torch.full((len(boxes),), BELOW, dtype=torch.int64, device=boxes.device)
    # The matcher sees the best IoU of each object as that with one more box.
    iou = torch.cat([box_iou(gt_boxes[chosen], boxes), best[chosen, None]], dim=1)
    matched = matcher(iou)[:-1]
    return torch.where(matched >= 0, chosen[matched.clamp(min=0)], matched)
