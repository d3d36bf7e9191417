"""Layout of scenes with objects stacked in depth: placement, rendering and exact ground truth.

Shared by procedural objects and cut-outs. An object is a layer: its coverage (uint8, 255 inside) and its colours, in a
window of its own size. Its binary mask is ``coverage >= 128``; the ground truth is computed only from binary masks, the
image from the coverage.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bcnet.data.cutouts import blend, cast_shadow, overlap
from bcnet.data.synthetic.config import SceneConfig

_DIRECTIONS = 5  # directions tried around the occluder of a new object
_DISTANCES = 9  # distances tried along each
_TOLERANCE = 0.06  # the search stops at a hidden fraction this close to the target


@dataclass
class SceneObject:
    """One object of a scene. Masks are bool [H, W], boxes (x, y, width, height) in pixels."""

    category_id: int
    depth: int  # 0 is nearest; unique in its scene
    amodal_mask: np.ndarray  # clipped to the image
    visible_mask: np.ndarray  # amodal mask minus all amodal masks in front
    bbox: tuple[int, int, int, int]  # tight around the visible mask; zeros where nothing is visible
    amodal_bbox: tuple[int, int, int, int]  # tight around the amodal mask
    visible_area: int
    amodal_area: int

    @property
    def hidden_fraction(self) -> float:
        """1 - visible area / amodal area."""
        return 1 - self.visible_area / self.amodal_area


@dataclass
class Scene:
    """An image and its ground truth: image uint8 [H, W, 3] RGB; objects nearest first."""

    image: np.ndarray
    objects: list[SceneObject]


@dataclass
class Placed:
    """An object's coverage (uint8 [h, w]) at position (x, y); it may extend beyond the image."""

    category_id: int
    coverage: np.ndarray
    x: int
    y: int

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the window in image coordinates."""
        height, width = self.coverage.shape
        return self.x + width / 2, self.y + height / 2

    def amodal_mask(self, size: int) -> np.ndarray:
        """The object's whole mask, clipped to an image of equal sides: bool [size, size]."""
        mask = np.zeros((size, size), bool)
        window, part = overlap(self.coverage.shape, self.x, self.y, mask.shape)
        mask[window] = self.coverage[part] >= 128
        return mask


def scene_object(category_id: int, depth: int, amodal: np.ndarray, occupied: np.ndarray) -> SceneObject:
    """The truth of an object from its amodal mask and the pixels of all objects in front of it, bool [H, W] each."""
    visible = amodal & ~occupied
    return SceneObject(
        category_id=category_id,
        depth=depth,
        amodal_mask=amodal,
        visible_mask=visible,
        bbox=_bounding_box(visible),
        amodal_bbox=_bounding_box(amodal),
        visible_area=int(np.count_nonzero(visible)),
        amodal_area=int(np.count_nonzero(amodal)),
    )


class Layout:
    """Places objects front to back, so that each one's hidden fraction is known when it is placed."""

    def __init__(self, config: SceneConfig) -> None:
        self.config = config
        self.size = config.image_size
        self.placed: list[Placed] = []  # nearest first
        self.objects: list[SceneObject] = []
        self._occupied = np.zeros((self.size, self.size), bool)

    def place(self, category_id: int, coverage: np.ndarray, behind: Placed | None, rng: np.random.Generator) -> bool:
        """Adds an object behind all others, if a position is found.

        Args:
            category_id: category id in the ground truth.
            coverage: uint8 [h, w].
            behind: the object that shall hide part of it; None for a position with as little overlap as possible.

        Returns:
            bool: False if no position leaves enough of it in the image and visible; nothing is added.
        """
        mask = coverage >= 128
        position = self._free_position(mask, rng) if behind is None else self._position_behind(mask, behind, rng)
        if position is None:
            return False
        x, y = position
        placed = Placed(category_id, coverage, x, y)
        amodal = placed.amodal_mask(self.size)
        self.objects.append(scene_object(category_id, len(self.objects), amodal, self._occupied))
        self._occupied |= amodal
        self.placed.append(placed)
        return True

    def _position_behind(self, mask: np.ndarray, front: Placed, rng: np.random.Generator) -> tuple[int, int] | None:
        target = rng.uniform(*self.config.hidden_range)
        height, width = mask.shape
        reach = (max(front.coverage.shape) + max(height, width)) / 2
        best, best_error = None, np.inf
        for angle in rng.uniform(0, 2 * np.pi, _DIRECTIONS):
            for distance in np.linspace(0.05, 0.95, _DISTANCES) * reach:
                x = round(front.centre[0] + distance * np.cos(angle) - width / 2)
                y = round(front.centre[1] + distance * np.sin(angle) - height / 2)
                hidden = self._hidden_fraction(mask, x, y)
                if hidden is not None and abs(hidden - target) < best_error:
                    best, best_error = (x, y), abs(hidden - target)
            if best_error < _TOLERANCE:
                break
        return best

    def _free_position(self, mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
        height, width = mask.shape
        # The first object, in front of all others, is placed near the centre, so that the others fit behind it.
        low, high = (0.3, 0.7) if not self.placed else (0.05, 0.95)
        best, best_hidden = None, np.inf
        for centre_x, centre_y in rng.uniform(low, high, (12, 2)) * self.size:
            x, y = round(centre_x - width / 2), round(centre_y - height / 2)
            hidden = self._hidden_fraction(mask, x, y)
            if hidden is not None and hidden < best_hidden:
                best, best_hidden = (x, y), hidden
            if best_hidden == 0:
                break
        return best

    def _hidden_fraction(self, mask: np.ndarray, x: int, y: int) -> float | None:
        """Hidden fraction of a mask at a position; None if the position is not allowed."""
        window, part = overlap(mask.shape, x, y, self._occupied.shape)
        inside = mask[part]
        amodal_area = np.count_nonzero(inside)
        if amodal_area == 0 or amodal_area < (1 - self.config.max_outside) * np.count_nonzero(mask):
            return None
        visible_area = np.count_nonzero(inside & ~self._occupied[window])
        hidden = 1 - visible_area / amodal_area
        if visible_area < self.config.min_visible_pixels or hidden > self.config.max_hidden_fraction:
            return None
        return hidden


def paint(canvas: np.ndarray, placed: Placed, colours: np.ndarray, shadow: float) -> None:
    """Draws an object's shadow and then the object onto the canvas (in place).

    Args:
        canvas: float32 [H, W, 3], 0..255.
        colours: float32 [h, w, 3] of the object's window.
        shadow: maximum fraction by which the shadow darkens the canvas.
    """
    size = canvas.shape[0]
    if shadow > 0:
        spread = max(size // 32, 2)
        # Light from above: the shadow is shifted down.
        cast_shadow(canvas, placed.coverage, placed.x, placed.y, darkness=shadow, spread=spread, shift=(0, spread // 2))
    blend(canvas, placed.coverage, colours, placed.x, placed.y)


def finish(canvas: np.ndarray, noise: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 image from a float32 canvas, with uniform noise of up to +-``noise``."""
    grain = rng.integers(-128, 128, canvas.shape, dtype=np.int8)  # a range of a power of two is fastest to draw
    return cv2.addWeighted(canvas, 1, grain, noise / 128, 0, dtype=cv2.CV_8U)


def _bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x, y, width, height) around the True pixels of a bool [H, W] mask."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, width, height
