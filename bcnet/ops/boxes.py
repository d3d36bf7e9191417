"""Boxes scaled around their centre."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled_boxes(boxes: Tensor, factor: float) -> Tensor:
    """Boxes of `factor` times the width and height around the same centres, not clipped.

    Args:
        boxes: float [D, 4], xyxy.
        factor: 1 returns the boxes as they are, bit for bit.

    Returns:
        Tensor: float [D, 4], xyxy.
    """
    if factor == 1:
        return boxes
    margin = (boxes[:, 2:] - boxes[:, :2]) * ((factor - 1) / 2)
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)
