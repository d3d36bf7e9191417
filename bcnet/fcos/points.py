"""FCOS points: image coordinates of the cells of a feature level."""

from __future__ import annotations

import torch
from torch import Tensor


def level_points(height: int, width: int, stride: int, device=None) -> Tensor:
    """The points of one level, row by row: ((x + 1/2) * stride, (y + 1/2) * stride).

    Returns:
        Tensor: float32 [height * width, 2], (x, y) in absolute pixels of the network's input.
    """
    xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
    ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)
