"""Where composition pastes an object: search of a position that hides a given share and shows no foreign contour.

Letters: H x W image, h x w window of the pasted object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.composed_image import ComposedObject
from bcnet.data.cutouts import ScaledCutout, overlap
from bcnet.ops.rle import decode_window

_STEPS = 7  # halvings of the distance along each
_TOLERANCE = 0.03  # the search along a direction ends at a hidden share this close to the drawn one
_MAX_ERROR = 0.1  # maximum difference between the hidden share and the drawn one
_MAX_CONTACT = 0.1  # share of an object's contour on other objects that may have touched another in its source image
_MIN_INSIDE = 0.5  # share of a pasted object that must lie in the image

# With the first pixel of the pasted mask at (x, y): the hidden share; whether the object may lie there.
HiddenAt = Callable[[int, int], float]
Fits = Callable[[int, int], bool]


def hidden_share_of(target: ComposedObject, mask: np.ndarray) -> HiddenAt:
    """The hidden share of a target below a mask."""
    left, top, width, height = (int(v) for v in coco_mask.toBbox(target.uncovered))
    window = decode_window(target.visible, left, top, left + width, top + height).astype(bool)
    area, visible = int(coco_mask.area(target.uncovered)), np.count_nonzero(window)

    def hidden_at(x: int, y: int) -> float:
        inside, part = overlap(mask.shape, x - left, y - top, window.shape)
        return 1 - (visible - np.count_nonzero(window[inside] & mask[part])) / area

    return hidden_at


def hidden_share_behind(occupied: np.ndarray, mask: np.ndarray) -> HiddenAt:
    """The hidden share of a mask behind occupied pixels, bool [H, W], of its part in the image."""

    def hidden_at(x: int, y: int) -> float:
        inside, part = overlap(mask.shape, x, y, occupied.shape)
        area = np.count_nonzero(mask[part])
        return np.count_nonzero(occupied[inside] & mask[part]) / area if area else 0.0

    return hidden_at


def own_contour(cutout: ScaledCutout, occupied: np.ndarray) -> Fits:
    """Whether an object in front of occupied pixels, bool [H, W], ends there by its own contour.

    Where it touched another object in its source image it may be that object's contour: a part of the object that was
    hidden there would now seem to lie behind what it is pasted on.
    """

    def fits(x: int, y: int) -> bool:
        inside, part = overlap(cutout.contour.shape, x, y, occupied.shape)
        contour, contact = (np.count_nonzero(m[part] & occupied[inside]) for m in (cutout.contour, cutout.contact))
        return bool(contact <= _MAX_CONTACT * contour)

    return fits


def contact_towards(cutout: ScaledCutout, angles: np.ndarray) -> np.ndarray:
    """The share of the contour in each direction that touched another object in the source image.

    Args:
        cutout: the object.
        angles: [d] in radians, from x to y.

    Returns:
        float64 [d].
    """
    y, x = np.nonzero(cutout.contour)
    height, width = cutout.contour.shape
    along = np.outer(np.cos(angles), x - width / 2) + np.outer(np.sin(angles), y - height / 2)
    facing = along > 0.5 * along.max(axis=1, keepdims=True)
    return facing @ cutout.contact[y, x].astype(np.float64) / np.maximum(facing.sum(axis=1), 1)


def anywhere(x: int, y: int) -> bool:
    """For objects behind others: their contour ends at what lies on them."""
    return True


def find_position(
    mask: np.ndarray,
    target: ComposedObject,
    hidden_at: HiddenAt,
    fits: Fits,
    share: float,
    image_size: tuple[int, int],
    directions: Iterable[float],
) -> tuple[int, int] | None:
    """Searches a position that fits near a target with a given hidden share: (x, y) of the first pixel, or None.

    Bisection along each direction (radians) from the target's centre: the hidden share decreases with the distance.
    """
    left, top, target_width, target_height = (int(v) for v in coco_mask.toBbox(target.uncovered))
    height, width = mask.shape
    total = np.count_nonzero(mask)
    reach = np.hypot(height + target_height, width + target_width) / 2
    best, best_error = None, _MAX_ERROR
    for angle in directions:
        near, far = 0.0, reach
        for _ in range(_STEPS):
            distance = (near + far) / 2
            x = round(left + (target_width - width) / 2 + distance * np.cos(angle))
            y = round(top + (target_height - height) / 2 + distance * np.sin(angle))
            hidden = hidden_at(x, y)
            error = abs(hidden - share)
            if error <= best_error and _inside(mask, x, y, image_size) >= _MIN_INSIDE * total and fits(x, y):
                best, best_error = (x, y), error
            if error < _TOLERANCE:
                break
            near, far = (distance, far) if hidden > share else (near, distance)
        if best_error < _TOLERANCE:
            break
    return best


def _inside(mask: np.ndarray, x: int, y: int, image_size: tuple[int, int]) -> int:
    return int(np.count_nonzero(mask[overlap(mask.shape, x, y, image_size)[1]]))
