"""Routing and drawing of arrows that do not lie on each other.

Letters: P points of a curve, h x w canvas.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bcnet.visualization import style

BENDS = (0.0, 0.15, -0.15, 0.3, -0.3, 0.5, -0.5)  # sideways deviation of the curve's middle, in lengths; nearest first
POINTS = 40  # P


class ArrowRouter:
    """Finds a curve for each arrow: straight where the way is free, else bent around earlier arrows and other places.

    Args:
        size: (h, w) of the canvas.
        places: x, y of the ends of all arrows; a curve keeps away from those that are not its own.
        margin: pixels around a place that stay free.
        width: of an arrow's line, pixels.
    """

    def __init__(self, size: tuple[int, int], places: Sequence[tuple[float, float]], margin: float, width: int) -> None:
        self.places = np.array(places, dtype=np.float64).reshape(-1, 2)
        self.margin = margin
        self.width = width
        self._used = np.zeros(size, dtype=np.uint8)

    def route(self, start: int, end: int) -> np.ndarray | None:
        """The curve from one place to another: float [P, 2] of x, y; None if they are too near for an arrow."""
        first, last = self.places[start], self.places[end]
        if np.linalg.norm(last - first) < 2 * self.margin + 2:
            return None
        others = np.delete(self.places, [start, end], axis=0)
        curves = [_curve(first, last, bend, self.margin) for bend in BENDS]
        costs = [self._cost(curve, others) + 0.1 * abs(bend) for curve, bend in zip(curves, BENDS, strict=True)]
        curve = curves[int(np.argmin(costs))]
        thickness = 4 * self.width
        cv2.polylines(self._used, [np.round(curve).astype(np.int32)], False, 1, thickness)
        return curve

    def _cost(self, curve: np.ndarray, others: np.ndarray) -> float:
        """Share of the curve that lies on earlier arrows, on other places, or outside the canvas."""
        height, width = self._used.shape
        columns, rows = np.round(curve).astype(int).T
        outside = (columns < 0) | (columns >= width) | (rows < 0) | (rows >= height)
        used = self._used[rows.clip(0, height - 1), columns.clip(0, width - 1)] > 0
        near = np.zeros(len(curve), dtype=bool)
        if len(others):
            near = np.linalg.norm(curve[:, None] - others[None], axis=2).min(axis=1) < self.margin + self.width
        return float((outside | used | near).mean())


def draw_arrow(canvas: np.ndarray, curve: np.ndarray, color: style.Color, width: int, *, opacity: float = 1.0) -> None:
    """A line along a curve with a head at its end, with a dark rim so that it shows on any ground (in place)."""
    low = np.maximum(curve.min(axis=0).astype(int) - 8 * width, 0)
    high = np.maximum(curve.max(axis=0).astype(int) + 8 * width, 0)
    area = canvas[low[1] : high[1], low[0] : high[0]]
    if area.size == 0:
        return
    drawn = area.copy()
    _arrow(drawn, curve - low, color, width)
    area[:] = cv2.addWeighted(drawn, opacity, area, 1 - opacity, 0)


def _curve(start: np.ndarray, end: np.ndarray, bend: float, margin: float) -> np.ndarray:
    """A quadratic Bezier curve without the parts within `margin` of its ends."""
    along = end - start
    across = np.array([-along[1], along[0]])
    control = (start + end) / 2 + 2 * bend * across
    times = np.linspace(0, 1, 4 * POINTS)[:, None]
    points = (1 - times) ** 2 * start + 2 * times * (1 - times) * control + times**2 * end
    free = (np.linalg.norm(points - start, axis=1) >= margin) & (np.linalg.norm(points - end, axis=1) >= margin)
    points = points[free]
    return points[np.linspace(0, len(points) - 1, POINTS).round().astype(int)]


def _arrow(canvas: np.ndarray, curve: np.ndarray, color: style.Color, width: int) -> None:
    end = curve[-1]
    length = float(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum())
    head = min(7.0 * width, 0.6 * length)
    # The head points along the last part of the curve, as long as it is itself.
    distances = np.linalg.norm(curve - end, axis=1)
    base_index = max(int(np.flatnonzero(distances >= head).max(initial=0)), 0)
    along = end - curve[base_index]
    along = along / max(float(np.linalg.norm(along)), 1e-9)
    across = np.array([-along[1], along[0]])
    base = end - head * along
    line = np.round(np.concatenate([curve[: base_index + 1], base[None]])).astype(np.int32)
    triangle = np.round([end, base + 0.45 * head * across, base - 0.45 * head * across]).astype(np.int32)
    for paint, extra in ((style.INK, 2), (color, 0)):
        cv2.polylines(canvas, [line], False, paint, width + 2 * extra, cv2.LINE_AA)
        cv2.fillPoly(canvas, [triangle], paint, cv2.LINE_AA)
        if extra:
            cv2.polylines(canvas, [triangle], True, paint, 2 * extra, cv2.LINE_AA)
