"""Boxes scaled around their centre, resized with their image, and jittered."""

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


def resized_boxes(boxes: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """Boxes of an image of `size` (H, W) in the image resized to `new_size`; of equal sizes as they are, bit for bit.

    Args:
        boxes: float [D, 4], xyxy in pixels; not clipped.
    """
    if tuple(size) == tuple(new_size):
        return boxes
    scale_y, scale_x = new_size[0] / size[0], new_size[1] / size[1]
    return boxes * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])


def jittered_boxes(boxes: Tensor, jitter: float, image_size: tuple[int, int]) -> Tensor:
    """Boxes whose sides each move by a random share of the box's width or height, clipped to the image.

    Args:
        boxes: float [D, 4], xyxy in pixels.
        jitter: shares are uniform in -jitter..jitter; below 0.5, so that a box keeps an area.
        image_size: (H, W).

    Returns:
        Tensor: float [D, 4]. Drawn from torch's generator of the boxes' device.
    """
    width_height = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + width_height * ((2 * torch.rand_like(boxes) - 1) * jitter)
    height, width = image_size
    return torch.minimum(moved.clamp(min=0), boxes.new_tensor([width, height, width, height]))
