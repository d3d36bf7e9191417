"""Occlusion-order baselines without training: area, lower edge, box area, and pixels in the common box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcnet.ops.rle import RLE

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class OrderedObject(NamedTuple):
    """What the baselines see of an object.

    Attributes:
        mask: uint8 [H, W], 1 on visible pixels.
        box: of these pixels: x0, y0, x1, y1 in pixels, the latter two exclusive.
    """

    mask: np.ndarray
    box: tuple[int, int, int, int]

    @classmethod
    def from_rle(cls, visible: RLE) -> OrderedObject:
        """Of a visible mask, a compressed RLE."""
        x, y, width, height = (int(value) for value in coco_mask.toBbox(visible))
        return cls(coco_mask.decode(visible), (x, y, x + width, y + height))


def _area(one: OrderedObject, other: OrderedObject) -> tuple[float, float]:
    return float(one.mask.sum()), float(other.mask.sum())


def _lower_edge(one: OrderedObject, other: OrderedObject) -> tuple[float, float]:
    return float(one.box[3]), float(other.box[3])


def _box_area(one: OrderedObject, other: OrderedObject) -> tuple[float, float]:
    (x0, y0, x1, y1), (u0, v0, u1, v1) = one.box, other.box
    return float((x1 - x0) * (y1 - y0)), float((u1 - u0) * (v1 - v0))


def _pixels_in_common_box(one: OrderedObject, other: OrderedObject) -> tuple[float, float]:
    window = _window(one.box, other.box)
    return float(one.mask[window].sum()), float(other.mask[window].sum())


BASELINES: dict[str, Callable[[OrderedObject, OrderedObject], tuple[float, float]]] = {
    "larger_area": _area,
    "lower_edge": _lower_edge,
    "larger_box": _box_area,
    "more_pixels_in_common_box": _pixels_in_common_box,
}
"""A cue of each of two objects; the one with the larger cue is in front, of equal ones neither.

"larger_area" and "lower_edge" are the baselines "Area" and "Y-axis" that InstaOrder and Zhan et al. (CVPR 2020) compare
with, there by the centre of the mask. "more_pixels_in_common_box" is our reading of the abstract of BBBD (Saleh and
Vámossy, VISAPP 2022): more visible pixels in the intersection of the two boxes. It is not BBBD itself, whose rules for
which pairs occlude each other are different.
"""


def bordering_pairs(objects: dict[int, OrderedObject]) -> Iterator[tuple[int, int]]:
    """Keys (i, j), i before j, of objects with visible masks that overlap or have two pixels side by side.

    The pairs between which InstaOrder's baselines predict an occlusion.
    """
    numbers = list(objects)
    grown = {number: cv2.dilate(item.mask, _CROSS) for number, item in objects.items()}
    for position, i in enumerate(numbers):
        x0, y0, x1, y1 = objects[i].box
        for j in numbers[position + 1 :]:
            window = _window((x0 - 1, y0 - 1, x1 + 1, y1 + 1), objects[j].box)
            if (grown[i][window] & objects[j].mask[window]).any():
                yield i, j


def _window(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> tuple[slice, slice]:
    """Rows and columns of the intersection of two boxes; empty where there is none."""
    x0, y0 = (max(0, a, b) for a, b in zip(box[:2], other[:2], strict=True))
    x1, y1 = (max(0, min(a, b)) for a, b in zip(box[2:], other[2:], strict=True))
    return slice(y0, y1), slice(x0, x1)
