"""Motion of tracked boxes: where a whole instance is expected, and how much of it another one covers."""

from __future__ import annotations

from collections import deque

import numpy as np

REMEMBERED = 12  # frames that the velocity is estimated from


class Motion:
    """The last boxes of an instance that showed it whole, and the motion at constant velocity that continues them.

    A box that is cut by an occluder shows neither the size nor the motion of the instance: it counts only as long as
    there was no whole one.
    """

    def __init__(self) -> None:
        self._whole: deque[tuple[int, np.ndarray]] = deque(maxlen=REMEMBERED)
        self._cut: deque[tuple[int, np.ndarray]] = deque(maxlen=REMEMBERED)

    def add(self, frame: int, box: np.ndarray, *, whole: bool) -> None:
        """Adds the box of a frame, float64 [4], xyxy."""
        (self._whole if whole else self._cut).append((frame, box))

    def expected(self, frame: int) -> np.ndarray:
        """The whole box in a later frame: float64 [4], xyxy; at least one box must have been added."""
        known = self._whole or self._cut
        frames = np.array([number for number, _ in known], dtype=np.float64)
        boxes = np.stack([box for _, box in known])
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        lag = frames - frames.mean()
        velocity = lag @ centres / max(float(lag @ lag), 1.0)  # the slope of the regression line
        centre, since = centres[-1], known[-1][0]
        half = (boxes[:, 2:] - boxes[:, :2]).max(axis=0) / 2  # some of them may have been cut
        if self._cut and self._cut[-1][0] > since:  # what was seen last lies inside of the whole
            since, part = self._cut[-1]
            centre = centre + velocity * (since - frames[-1])
            low, high = part[2:] - half, part[:2] + half
            centre = np.where(low <= high, np.clip(centre, low, high), (low + high) / 2)
        centre = centre + velocity * (frame - since)
        return np.concatenate([centre - half, centre + half])


def intersection(first: np.ndarray, second: np.ndarray) -> float:
    """The area of the intersection of two boxes, xyxy."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    return float(np.prod(np.maximum(sides, 0)))


def area(box: np.ndarray) -> float:
    return float(np.prod(np.maximum(box[2:] - box[:2], 0)))


def touch(box: np.ndarray, other: np.ndarray, margin: float) -> bool:
    """Whether a box, grown by a share of its sides on each of them, meets another one."""
    grow = margin * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    return intersection(box + grow, other) > 0


def covered_share(box: np.ndarray, front: np.ndarray, image_size: tuple[int, int]) -> float:
    """The share of a box's part inside the image, (H, W), that another box covers; 0 if most of it lies outside."""
    height, width = image_size
    inside = np.clip(box, 0, [width, height, width, height])
    return intersection(inside, front) / area(inside) if area(inside) >= area(box) / 2 > 0 else 0.0


def overlap_of_smaller(first: np.ndarray, second: np.ndarray) -> float:
    """The area of the intersection of two boxes, as a share of the smaller one; 0 if that is empty."""
    smaller = min(area(first), area(second))
    return intersection(first, second) / smaller if smaller > 0 else 0.0


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The distance of the centres of two boxes, relative to the larger diagonal of both."""
    centres = (first[:2] + first[2:] - second[:2] - second[2:]) / 2
    diagonal = max(np.hypot(*(box[2:] - box[:2])) for box in (first, second))
    return float(np.hypot(*centres) / max(diagonal, 1.0))
