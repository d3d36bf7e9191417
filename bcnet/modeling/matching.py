"""Matching of anchors and proposals to ground-truth boxes by IoU."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

BELOW, BETWEEN = Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS


def match_boxes(matcher: Matcher, gt_boxes: Tensor, boxes: Tensor) -> Tensor:
    """torchvision's matcher, extended to images without ground truth.

    Returns:
        Tensor: int64 [len(boxes)], index of the matched ground-truth box; BELOW or BETWEEN where the IoU is
            below or between the thresholds.
    """
    if len(gt_boxes) == 0 or len(boxes) == 0:
        return torch.full((len(boxes),), BELOW, dtype=torch.int64, device=boxes.device)
    return matcher(box_iou(gt_boxes, boxes))
