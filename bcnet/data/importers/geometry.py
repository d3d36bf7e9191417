"""Segmentations from the shapes of annotation tools: flat polygons, ellipses, masks in windows, and unions of them.

Coordinates are absolute pixels, x to the right and y down; (0, 0) is the corner of the first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bcnet.data.coco_json import is_finite, short
from bcnet.data.findings import AnnotationError
from bcnet.ops.rle import RLE, encode_window, rle_to_json, rle_union, segmentation_to_rle

_ELLIPSE_ERROR = 0.05  # pixels between an ellipse and its polygon
_ELLIPSE_POINTS = 4096  # at most; enough for a radius of 170,000 pixels


def flat_points(points: Any) -> list[float]:
    """[[x, y], ...] as COCO's [x, y, ...].

    Raises:
        AnnotationError: it is not a list of pairs of finite numbers.
    """
    pairs = isinstance(points, (list, tuple)) and all(
        isinstance(point, (list, tuple)) and len(point) == 2 and all(map(is_finite, point)) for point in points
    )
    if not pairs:
        raise AnnotationError(
            f"points must be a list of pairs of finite numbers, got {short(points)}", "malformed points"
        )
    return [value for point in points for value in point]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """The polygon of a box of two corners, in any order."""
    (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> list[float]:
    """The polygon of an ellipse around (x, y), turned clockwise, at most 0.05 pixels off."""
    # Chords of an angle a are a**2 / 8 of the radius away from the arc.
    largest = max(abs(radius_x), abs(radius_y), _ELLIPSE_ERROR)
    count = math.ceil(min(max(2 * math.pi / math.sqrt(8 * _ELLIPSE_ERROR / largest), 12), _ELLIPSE_POINTS))
    angles = np.arange(count) * (2 * math.pi / count)
    turn = math.radians(degrees)
    along, across = radius_x * np.cos(angles), radius_y * np.sin(angles)
    xs = x + along * math.cos(turn) - across * math.sin(turn)
    ys = y + along * math.sin(turn) + across * math.cos(turn)
    return np.stack([xs, ys], axis=1).ravel().tolist()


def window_rle(mask: np.ndarray, x0: int, y0: int, height: int, width: int) -> RLE:
    """The RLE, as JSON has it, of a mask [h, w] whose first pixel is (x0, y0) of a height x width image.

    What lies outside the image is cut off.
    """
    top, left = max(-y0, 0), max(-x0, 0)
    inside = mask[top : max(height - y0, top), left : max(width - x0, left)]
    if inside.size == 0:
        inside, x0, y0 = np.zeros((1, 1), dtype=np.uint8), 0, 0
    return rle_to_json(encode_window(inside, max(x0, 0), max(y0, 0), (height, width)))


def joined(parts: Sequence[list[float] | RLE], height: int, width: int) -> list[list[float]] | RLE:
    """One segmentation of the parts of an object: a list of polygons, or the RLE of all where one of them is an RLE.

    Raises:
        SegmentationError: a polygon is malformed and there is an RLE to unite it with.
    """
    polygons = [part for part in parts if isinstance(part, list)]
    rles = [part for part in parts if not isinstance(part, list)]
    if not rles or len(parts) == 1:
        return rles[0] if rles else polygons
    segmentations = [*rles, polygons] if polygons else rles
    return rle_to_json(rle_union([segmentation_to_rle(part, height, width) for part in segmentations]))


def label_masks(values: np.ndarray) -> dict[int, tuple[np.ndarray, int, int]]:
    """The objects of a label image: by value above 0 its mask in the window of its pixels, and the window's x and y.

    Args:
        values: integers [H, W].
    """
    places = np.flatnonzero(values > 0)
    found = values.ravel()[places]
    order = np.argsort(found, kind="stable")
    places, found = places[order], found[order]
    starts = np.flatnonzero(np.diff(found, prepend=0)) if len(found) else places
    objects = {}
    for pixels, value in zip(np.split(places, starts[1:]), found[starts].tolist(), strict=len(starts) > 0):
        rows, columns = np.divmod(pixels, values.shape[1])
        y0, y1, x0, x1 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        mask = np.zeros((y1 - y0, x1 - x0), dtype=np.uint8)
        mask[rows - y0, columns - x0] = 1
        objects[value] = (mask, int(x0), int(y0))
    return objects
