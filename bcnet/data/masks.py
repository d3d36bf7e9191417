"""Conversion of RLE masks to windows of the transformed image, without decoding full-image masks.

Letters: G instances, L layers, H x W source image, h x w window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask

from bcnet.ops.rle import RLE, decode_window
from bcnet.structures import InstanceMasks


def instance_masks(
    layers: Mapping[str, Sequence[RLE | None]], rows: np.ndarray, columns: np.ndarray
) -> tuple[InstanceMasks, list[bool]]:
    """The masks of one image's instances after the transform (crop, nearest resize, padding, flip).

    Args:
        layers: G compressed RLE masks [H, W] by layer name; None is an empty mask. An instance is kept if its mask in
            the first layer is not empty after the transform.
        rows, columns: int64 [h], [w], the source pixel of each output row and column, monotonic
            (`Transform.source_pixels`).

    Returns:
        The windows of the kept instances, equal to `InstanceMasks.from_full` of ``mask[rows][:, columns]``; and for
        each of the G instances whether it is kept.
    """
    crops, origins, kept = [], [], []
    for rles in zip(*layers.values(), strict=True):
        pixels, x0, y0 = _transformed_layers(rles, rows, columns)
        kept.append(bool(pixels[0].any()))
        if kept[-1]:
            crop, origin = _tight_window(pixels, x0, y0, len(rows), len(columns))
            crops.append(torch.from_numpy(crop))
            origins.append(origin)
    return InstanceMasks.from_windows(tuple(layers), crops, origins), kept


def _transformed_layers(
    rles: Sequence[RLE | None], rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, int, int]:
    """The transformed layers in a window around all set pixels: uint8 [L, h, w], and the window's x and y."""
    boxes = np.array([coco_mask.toBbox(rle) for rle in rles if rle is not None]).reshape(-1, 4)
    boxes = boxes[boxes[:, 2] > 0].astype(np.int64)
    if len(boxes) == 0:
        return np.zeros((len(rles), 0, 0), dtype=np.uint8), 0, 0
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    left, right = _span(columns, x0, x1)
    top, bottom = _span(rows, y0, y1)
    layers = np.zeros((len(rles), bottom - top, right - left), dtype=np.uint8)
    if layers.size == 0:
        return layers, left, top
    picked_columns, picked_rows = columns[left:right] - x0, rows[top:bottom] - y0
    for layer, rle in zip(layers, rles, strict=True):
        if rle is None:
            continue
        # Columns first, because COCO's masks are column-major; then whole rows are copied.
        by_column = decode_window(rle, x0, y0, x1, y1).T[picked_columns]
        np.take(cv2.transpose(by_column), picked_rows, axis=0, out=layer, mode="clip")
    return layers, left, top


def _span(table: np.ndarray, start: int, stop: int) -> tuple[int, int]:
    """The range of positions [a, b) whose entries in a monotonic table lie in [start, stop)."""
    if len(table) > 1 and table[0] > table[-1]:
        a, b = _span(table[::-1], start, stop)
        return len(table) - b, len(table) - a
    a, b = np.searchsorted(table, [start, stop], side="left")
    return int(a), int(b)


def _tight_window(layers: np.ndarray, x0: int, y0: int, height: int, width: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Crops uint8 [L, h, w] at (x0, y0) of a height x width image to its set pixels, with a margin of one pixel."""
    union = layers.any(axis=0)
    ys, xs = (np.flatnonzero(np.any(union, axis=axis)) for axis in (1, 0))
    top, bottom, left, right = ys[0], ys[-1] + 1, xs[0], xs[-1] + 1
    window = np.zeros((len(layers), bottom - top + 2, right - left + 2), dtype=np.uint8)
    window[:, 1:-1, 1:-1] = layers[:, top:bottom, left:right]
    # Outside the image the margin repeats the edge; inside it is zero, because the window is tight.
    if y0 + top == 0:
        window[:, 0] = window[:, 1]
    if y0 + bottom == height:
        window[:, -1] = window[:, -2]
    if x0 + left == 0:
        window[:, :, 0] = window[:, :, 1]
    if x0 + right == width:
        window[:, :, -1] = window[:, :, -2]
    return window, (int(x0 + left) - 1, int(y0 + top) - 1)
