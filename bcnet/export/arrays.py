"""Mask pasting and occlusion confidences in numpy: what `bcnet.ops.paste` and `bcnet.occlusion.relations` do in torch.

Bilinear sampling on a grid is separable: two small matrix products for each map.

Letters: D detections, P pairs of them, M mask side, S samples per side, H x W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bcnet.occlusion.rule import HALF_CONFIDENCE, MIN_PIXELS

SAMPLES = 28  # S
PAIRS_AT_ONCE = 512

Window = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels


def paste_windows(
    maps: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int]
) -> Iterator[tuple[Window, np.ndarray]]:
    """As `bcnet.ops.paste.paste_windows`, up to rounding.

    Args:
        maps: float32 [D, M, M].
        boxes: float32 [D, 4], xyxy in absolute pixels of the image.
        image_size: (H, W).

    Yields:
        For each detection the window of pixels inside the image, and the float32 [h, w] map there.
    """
    height, width = image_size
    for roi_map, box in zip(maps, boxes, strict=True):
        left, top = np.floor(box[:2]).tolist()
        right, bottom = np.ceil(box[2:]).tolist()
        x0, y0 = min(max(int(left), 0), width), min(max(int(top), 0), height)
        x1, y1 = max(min(int(right), width), x0), max(min(int(bottom), height), y0)
        if x1 == x0 or y1 == y0 or right <= left or bottom <= top:
            yield (x0, y0, x0, y0), np.zeros((0, 0), np.float32)
            continue
        columns = _weights(np.arange(x0, x1, dtype=np.float32) + np.float32(0.5), box[0], box[2], len(roi_map))
        rows = _weights(np.arange(y0, y1, dtype=np.float32) + np.float32(0.5), box[1], box[3], len(roi_map))
        yield (x0, y0, x1, y1), rows @ roi_map @ columns.T


def occluder_confidence(
    occludee_mask: np.ndarray,
    occluder_mask: np.ndarray,
    boxes: np.ndarray,
    image_size: tuple[int, int],
    min_pixels: int = MIN_PIXELS,
) -> np.ndarray:
    """As `bcnet.occlusion.relations.occluder_confidence`, up to rounding.

    Args:
        occludee_mask, occluder_mask: float32 [D, M, M].
        boxes: float32 [D, 4], the RoIs that the maps span, xyxy in pixels of the image.
        image_size: (H, W).
        min_pixels: in pixels of the image.

    Returns:
        float32 [D, D], 0..1, at [i, j] the confidence that j covers i.
    """

    def over_the_occluders_pixels(below: np.ndarray, above: np.ndarray, area: np.ndarray) -> np.ndarray:
        weights = above[:, 0] * (1 - above[:, 1])
        share = weights.mean(axis=(1, 2))
        mean = (weights * below[:, 1]).mean(axis=(1, 2)) / np.maximum(share, np.float32(1e-6))
        return np.where(share * area >= min_pixels, mean, 0)

    maps = np.stack([occludee_mask, occluder_mask], axis=1)
    return _pairwise(maps, boxes, image_size, over_the_occluders_pixels)


def hidden_part_confidence(
    occludee_mask: np.ndarray, occludee_amodal: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    """As `bcnet.occlusion.relations.hidden_part_confidence`, up to rounding; arguments as `occluder_confidence`."""

    def hidden_pixels(below: np.ndarray, above: np.ndarray, area: np.ndarray) -> np.ndarray:
        return (np.maximum(below[:, 1] - below[:, 0], 0) * above[:, 0]).mean(axis=(1, 2)) * area

    maps = np.stack([occludee_mask, occludee_amodal], axis=1)
    hidden = _pairwise(maps, boxes, image_size, hidden_pixels)
    whole = occludee_amodal.mean(axis=(1, 2)) * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return hidden / np.maximum(hidden + np.float32(HALF_CONFIDENCE) * whole[:, None], np.float32(1e-6))


def _pairwise(
    maps: np.ndarray,
    boxes: np.ndarray,
    image_size: tuple[int, int],
    measure: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """At [i, j] a measure of how j covers i over the intersection of both boxes; maps are float32 [D, 2, M, M]."""
    height, width = image_size
    limits = np.array([width, height], np.float32)
    low = np.maximum(np.maximum(boxes[:, None, :2], boxes[None, :, :2]), 0)
    high = np.minimum(np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]), limits)
    pairs = np.argwhere(np.triu((high - low).min(axis=2, initial=np.inf) > 0, k=1))
    measured = np.zeros((len(boxes), len(boxes)), np.float32)
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        first, second = pairs[start : start + PAIRS_AT_ONCE].T
        window = np.concatenate([low[first, second], high[first, second]], axis=1)
        sampled = [_sampled(maps[side], boxes[side], window) for side in (first, second)]
        area = (window[:, 2:] - window[:, :2]).prod(axis=1)
        for occludee, occluder, below, above in ((first, second, *sampled), (second, first, *reversed(sampled))):
            measured[occludee, occluder] = measure(below, above, area)
    return measured


def _sampled(maps: np.ndarray, boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Maps [P, 2, M, M] at S x S points of windows inside the boxes: float32 [P, 2, S, S]."""
    steps = (np.arange(SAMPLES, dtype=np.float32) + np.float32(0.5)) / SAMPLES
    weights = []
    for axis in (0, 1):
        start, end = windows[:, axis, None], windows[:, axis + 2, None]
        points = start + steps * (end - start)
        weights.append(_weights(points, boxes[:, axis, None], boxes[:, axis + 2, None], maps.shape[-1], border=True))
    columns, rows = weights  # [P, S, M] each
    return rows[:, None] @ maps @ columns[:, None].swapaxes(2, 3)


def _weights(points: np.ndarray, low, high, side: int, *, border: bool = False) -> np.ndarray:
    """Bilinear interpolation weights of the cells of a map between `low` and `high`, as grid_sample has them.

    Args:
        points: float32 [..., n], coordinates.
        side: M.
        border: points beyond the outermost centres take the value there; otherwise it fades to zero.

    Returns:
        float32 [..., n, M].
    """
    normalised = (points - low) / (high - low) * 2 - 1
    position = ((normalised + 1) * side - 1) / 2
    if border:
        position = np.clip(position, 0, side - 1)
    cells = np.arange(side, dtype=np.float32)
    return np.maximum(1 - np.abs(position[..., None] - cells), 0).astype(np.float32)
