"""Resizing and flipping of images, boxes and masks, with detectron2's numbers.

A `Transform` is decided once per image and then applied to everything that belongs to it. Masks are never
transformed whole: nearest resizing and flipping only pick pixels, so the transform is handed on as the
source row and the source column of every output row and column.

Letters: G boxes, H x W source image, h x w transformed image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

FLIPS = ("none", "horizontal", "vertical")


def resized_size(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """Size (h, w) after the short side is brought to `short_side`, the long one to `max_size` at most.

    Floating point and rounding (half up) follow detectron2's `ResizeShortestEdge.get_output_shape`, on which
    the last pixel depends; but no side falls below 1. A short side of 0 leaves the size.
    """
    if short_side == 0:
        return height, width
    size = float(short_side)
    scale = size / min(height, width)
    h, w = (size, scale * width) if height < width else (scale * height, size)
    if max(h, w) > max_size:
        scale = max_size * 1.0 / max(h, w)
        h, w = h * scale, w * scale
    return max(int(h + 0.5), 1), max(int(w + 0.5), 1)


@dataclass(frozen=True)
class Transform:
    """A resize, then a flip.

    Attributes:
        input_size: (H, W).
        output_size: (h, w).
        flip: "none", "horizontal" or "vertical".
    """

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    flip: str = "none"

    def __post_init__(self) -> None:
        if self.flip not in FLIPS:
            raise ValueError(f"flip must be one of {', '.join(FLIPS)}, got {self.flip!r}")
        if min(self.output_size) < 1 or min(self.input_size) < 1:
            raise ValueError(f"sizes must be at least 1 x 1 pixel, got {self.input_size} -> {self.output_size}")

    def apply_image(self, image: np.ndarray | Image.Image) -> np.ndarray:
        """The image transformed with PIL's bilinear filter, as detectron2 resizes: uint8 or float32 [h, w, 3].

        Args:
            image: uint8 or float [H, W, 3] in any channel order (channels are resized one by one), or a PIL image.
                Floats go through the same filter and are not rounded.

        Raises:
            ValueError: the image is not of the transform's input size.
        """
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                return self._apply_floats(image.astype(np.float32))
            image = Image.fromarray(image)
        if (image.height, image.width) != tuple(self.input_size):
            raise ValueError(f"the image has height and width {(image.height, image.width)}, not {self.input_size}")
        height, width = self.output_size
        if (height, width) != tuple(self.input_size):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        # After the resize, as in detectron2: the filter's rounding is not symmetric.
        if self.flip == "horizontal":
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        elif self.flip == "vertical":
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return np.asarray(image)

    def _apply_floats(self, image: np.ndarray) -> np.ndarray:
        # PIL has no colour images of floats, but grey ones.
        channels = [
            self.apply_image(Image.fromarray(np.ascontiguousarray(image[:, :, channel])))
            for channel in range(image.shape[2])
        ]
        return np.stack(channels, axis=2)

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes transformed and clipped to the image, as detectron2 does: float64 [G, 4].

        Args:
            boxes: float [G, 4], xyxy in absolute pixels of the source image.
        """
        (source_height, source_width), (height, width) = self.input_size, self.output_size
        scale_x, scale_y = width * 1.0 / source_width, height * 1.0 / source_height
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * [scale_x, scale_y, scale_x, scale_y]
        if self.flip == "horizontal":
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        elif self.flip == "vertical":
            boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        return np.clip(boxes, 0, [width, height, width, height])

    def source_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Source row of each output row, int64 [h], and source column of each output column, int64 [w].

        ``mask[rows][:, columns]`` is the mask after PIL's nearest resize and the flip. Within each table the
        numbers only rise or, flipped, only fall.
        """
        (source_height, source_width), (height, width) = self.input_size, self.output_size
        rows, columns = _nearest_pixels(source_height, height), _nearest_pixels(source_width, width)
        if self.flip == "vertical":
            rows = rows[::-1]
        elif self.flip == "horizontal":
            columns = columns[::-1]
        return rows, columns


def _nearest_pixels(source: int, target: int) -> np.ndarray:
    """The source pixel that PIL's nearest filter takes for each of `target` pixels: int64 [target]."""
    # PIL adds up the step in floating point, so PIL itself is asked.
    line = Image.fromarray(np.arange(source, dtype=np.int32)[None])
    return np.asarray(line.resize((target, 1), Image.Resampling.NEAREST))[0].astype(np.int64)


@dataclass(frozen=True)
class ResizeShortestEdge:
    """Draws the short side that an image is resized to.

    Attributes:
        short_sides: pixels; with "choice" any of them, with "range" the two ends of an interval (inclusive).
            0 leaves the image at its size.
        max_size: bound of the long side.
        sampling: "choice" or "range".
    """

    short_sides: Sequence[int]
    max_size: int
    sampling: str = "choice"

    def __post_init__(self) -> None:
        if self.sampling not in ("choice", "range"):
            raise ValueError(f"sampling must be 'choice' or 'range', got {self.sampling!r}")
        if len(self.short_sides) == 0 or (self.sampling == "range" and len(self.short_sides) != 2):
            raise ValueError(f"sampling {self.sampling!r} cannot draw from the short sides {tuple(self.short_sides)}")

    def output_size(self, height: int, width: int, rng: np.random.Generator | None = None) -> tuple[int, int]:
        """The size (h, w) of an image of height x width; `rng` is needed where there is something to draw."""
        if len(set(self.short_sides)) == 1:
            short_side = self.short_sides[0]
        elif rng is None:
            raise ValueError(f"the short side is drawn from {tuple(self.short_sides)}: a random generator is needed")
        elif self.sampling == "range":
            short_side = int(rng.integers(self.short_sides[0], self.short_sides[1] + 1))
        else:
            short_side = self.short_sides[int(rng.integers(len(self.short_sides)))]
        return resized_size(height, width, int(short_side), self.max_size)


@dataclass(frozen=True)
class Augmentation:
    """What is done to an image: a resize and, in training, a flip with probability 1/2."""

    resize: ResizeShortestEdge
    flip: str = "none"

    @classmethod
    def from_config(cls, cfg, training: bool) -> Augmentation:
        """From INPUT.{MIN,MAX}_SIZE_{TRAIN,TEST}, MIN_SIZE_TRAIN_SAMPLING and RANDOM_FLIP."""
        if not training:
            return cls(ResizeShortestEdge((cfg.INPUT.MIN_SIZE_TEST,), cfg.INPUT.MAX_SIZE_TEST))
        short_sides = cfg.INPUT.MIN_SIZE_TRAIN
        resize = ResizeShortestEdge(tuple(short_sides), cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING)
        return cls(resize, cfg.INPUT.RANDOM_FLIP)

    def draw(self, height: int, width: int, rng: np.random.Generator | None = None) -> Transform:
        """The transform of an image of height x width; `rng` is needed where there is something to draw."""
        output_size = self.resize.output_size(height, width, rng)
        flip = "none"
        if self.flip != "none":
            if rng is None:
                raise ValueError(f"a random generator is needed to draw the flip {self.flip!r}")
            flip = self.flip if rng.random() < 0.5 else "none"
        return Transform((height, width), output_size, flip)
