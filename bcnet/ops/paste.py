"""Mask pasting: resamples mask maps from the RoI frame into the image, bilinearly.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Window(NamedTuple):
    """Pixel columns x0..x1-1 and rows y0..y1-1 of an image; empty where x1 == x0 or y1 == y0."""

    x0: int
    y0: int
    x1: int
    y1: int


def paste_windows(maps: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Iterator[tuple[Window, Tensor]]:
    """Resamples maps of the box frame to the pixels that their boxes touch, bilinearly.

    The pixel (x, y) of the image is sampled at its centre (x + 1/2, y + 1/2), and a box spans its map
    from corner to corner (no pixel is added), as in detectron2's `paste_masks_in_image`. Sampling fades
    to zero across the map's edge, so a probability above 1/2 never lies outside the box.

    Args:
        maps: float [D, M, M], for example probabilities.
        boxes: float [D, 4], xyxy in absolute pixels of the image.
        image_size: (H, W).

    Yields:
        For each detection the window of pixels inside the image, and the float [h, w] map there.
    """
    height, width = image_size
    maps, boxes = maps.float(), boxes.float()
    # One transfer to the host for all windows, not one per detection.
    corners = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], dim=1).tolist()
    for roi_map, box, (left, top, right, bottom) in zip(maps, boxes, corners, strict=True):
        x0, y0 = min(max(int(left), 0), width), min(max(int(top), 0), height)
        x1, y1 = max(min(int(right), width), x0), max(min(int(bottom), height), y0)
        window = Window(x0, y0, x1, y1)
        box_width, box_height = box[2] - box[0], box[3] - box[1]
        if x1 == x0 or y1 == y0 or right <= left or bottom <= top:
            yield Window(x0, y0, x0, y0), roi_map.new_zeros(0, 0)
            continue
        xs = (torch.arange(x0, x1, device=maps.device) + 0.5 - box[0]) / box_width * 2 - 1
        ys = (torch.arange(y0, y1, device=maps.device) + 0.5 - box[1]) / box_height * 2 - 1
        grid = torch.stack([xs.expand(len(ys), -1), ys[:, None].expand(-1, len(xs))], dim=2)
        yield window, F.grid_sample(roi_map[None, None], grid[None], align_corners=False)[0, 0]


def paste_maps(maps: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`paste_windows` laid into full images: float [D, H, W], zero outside the boxes."""
    pasted = torch.zeros(len(maps), *image_size, dtype=torch.float32, device=maps.device)
    for image, (window, values) in zip(pasted, paste_windows(maps, boxes, image_size), strict=True):
        image[window.y0 : window.y1, window.x0 : window.x1] = values
    return pasted


def paste_masks(maps: Tensor, boxes: Tensor, image_size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """`paste_windows` thresholded (>=) into full-image masks: bool [D, H, W]."""
    pasted = torch.zeros(len(maps), *image_size, dtype=torch.bool, device=maps.device)
    for image, (window, values) in zip(pasted, paste_windows(maps, boxes, image_size), strict=True):
        image[window.y0 : window.y1, window.x0 : window.x1] = values >= threshold
    return pasted
