"""Labels of anchors and proposals from their overlap with the ground truth."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

BELOW, BETWEEN = Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS


def match_boxes(matcher: Matcher, gt_boxes: Tensor, boxes: Tensor) -> Tensor:
    """torchvision's matcher, with images without ground truth allowed.

    Returns:
        Tensor: int64 [len(boxes)], the matched ground truth's index, BELOW or BETWEEN the thresholds.
    """
    if len(gt_boxes) == 0 or len(boxes) == 0:
        return torch.full((len(boxes),), BELOW, dtype=torch.int64, device=boxes.device)
    return matcher(box_iou(gt_boxes, boxes))
