"""Data augmentation of training images: random crop, resize, large-scale jitter, flip and colour jitter.

detectron2's augmentations and config keys; random numbers come from a generator that is handed in. Composition, which
pastes objects before all of these, is in `bcnet.data.composition`.

Letters: H x W source image, h x w transformed image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bcnet.data.transforms import Transform, resized_size

CROP_TYPES = ("relative", "relative_range", "absolute", "absolute_range")
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of RGB, as detectron2's `RandomSaturation` weights


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
class RandomCrop:
    """Draws the region of the source image that is kept: detectron2's `RandomCrop`.

    Attributes:
        type: "relative": `size` are shares of height and width. "relative_range": the shares are drawn from `size` to
            1. "absolute": `size` is height and width in pixels. "absolute_range": height and width are drawn, each from
            the two numbers of `size`. A region is never larger than the image.
        size: two numbers.
    """

    type: str
    size: Sequence[float]

    def __post_init__(self) -> None:
        if self.type not in CROP_TYPES:
            raise ValueError(f"the crop's type must be one of {', '.join(CROP_TYPES)}, got {self.type!r}")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """The region (x, y, width, height) of an image of height x width."""
        h, w = self._size(height, width, rng)
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        return x, y, w, h

    def _size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        if self.type == "absolute":
            return min(int(self.size[0]), height), min(int(self.size[1]), width)
        if self.type == "absolute_range":
            low, high = (int(bound) for bound in self.size)
            h, w = (int(rng.integers(min(side, low), min(side, high) + 1)) for side in (height, width))
            return h, w
        shares = np.asarray(self.size, dtype=np.float32)
        if self.type == "relative_range":
            shares = shares + rng.random(2) * (1 - shares)
        return max(int(height * shares[0] + 0.5), 1), max(int(width * shares[1] + 0.5), 1)


@dataclass(frozen=True)
class ScaleJitter:
    """Large-scale jitter: a random resize, then a random crop or padding to a fixed size.

    detectron2's `ResizeScale` and `FixedSizeCrop`: the image is resized to fit a box of `size` times a drawn scale,
    keeping its aspect ratio. What exceeds `size` is cropped at random, what is missing is padded.

    Attributes:
        min_scale, max_scale: bounds of the scale.
        size: (height, width) of the result in pixels.
    """

    min_scale: float
    max_scale: float
    size: tuple[int, int]

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width after the resize, and the offset (x, y) of the crop in it."""
        scale = rng.uniform(self.min_scale, self.max_scale)
        fitting = min(self.size[0] * scale / height, self.size[1] * scale / width)
        h, w = (max(round(side * fitting), 1) for side in (height, width))
        place = rng.uniform(0.0, 1.0)
        y, x = (round(max(side - bound, 0) * place) for side, bound in zip((h, w), self.size, strict=True))
        return (h, w), (x, y)


@dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast and saturation, as detectron2's `RandomBrightness` and its siblings change them.

    Each is a range that an intensity is drawn from; 1 leaves the image as it is. They follow each other in this order.
    """

    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An image with drawn intensities: uint8 [H, W, 3] RGB to the same."""
        brightness, contrast, saturation = (
            rng.uniform(*bounds) for bounds in (self.brightness, self.contrast, self.saturation)
        )
        values = np.arange(256, dtype=np.uint8)
        image = cv2.LUT(image, _blended(values, 0, brightness))
        image = cv2.LUT(image, _blended(values, image.mean(), contrast))
        return _blended(image, image.dot(_LUMINANCE)[:, :, None], saturation)


def _blended(pixels: np.ndarray, other: float | np.ndarray, weight: float) -> np.ndarray:
    """fvcore's `BlendTransform`: weight x pixels + (1 - weight) x other, cut to uint8."""
    mixed = (1 - weight) * other + weight * pixels.astype(np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Augmentation:
    """What is done to an image: a crop, a resize and, in training, a flip with probability 1/2, and colour jitter.

    Attributes:
        resize: of the short side.
        flip: "none", "horizontal" or "vertical".
        crop: of the source image, before the resize.
        scale_jitter: takes the place of the resize.
        color_jitter: of the source image.
    """

    resize: ResizeShortestEdge
    flip: str = "none"
    crop: RandomCrop | None = None
    scale_jitter: ScaleJitter | None = None
    color_jitter: ColorJitter | None = None

    @classmethod
    def from_config(cls, cfg, training: bool) -> Augmentation:
        """From INPUT.{MIN,MAX}_SIZE_{TRAIN,TEST}, MIN_SIZE_TRAIN_SAMPLING, RANDOM_FLIP and the jitters' sections."""
        inputs = cfg.INPUT
        if not training:
            return cls(ResizeShortestEdge((inputs.MIN_SIZE_TEST,), inputs.MAX_SIZE_TEST))
        crop, scale, color = inputs.CROP, inputs.SCALE_JITTER, inputs.COLOR_JITTER
        return cls(
            ResizeShortestEdge(tuple(inputs.MIN_SIZE_TRAIN), inputs.MAX_SIZE_TRAIN, inputs.MIN_SIZE_TRAIN_SAMPLING),
            inputs.RANDOM_FLIP,
            RandomCrop(crop.TYPE, tuple(crop.SIZE)) if crop.ENABLED else None,
            ScaleJitter(scale.MIN_SCALE, scale.MAX_SCALE, tuple(scale.SIZE)) if scale.ENABLED else None,
            ColorJitter(tuple(color.BRIGHTNESS), tuple(color.CONTRAST), tuple(color.SATURATION))
            if color.ENABLED
            else None,
        )

    @property
    def cuts_objects(self) -> bool:
        """Whether objects may be cropped, so that boxes no longer follow from the annotations' boxes."""
        return self.crop is not None or self.scale_jitter is not None

    def draw(self, height: int, width: int, rng: np.random.Generator | None = None) -> Transform:
        """The transform of an image of height x width; `rng` is needed where there is something to draw."""
        region = None if self.crop is None else self.crop.draw(height, width, required_rng(rng, "a crop"))
        region_width, region_height = (width, height) if region is None else region[2:]
        if self.scale_jitter is None:
            output_size, resized, offset = self.resize.output_size(region_height, region_width, rng), None, (0, 0)
        else:
            output_size = self.scale_jitter.size
            jitter_rng = required_rng(rng, "the scale jitter")
            resized, offset = self.scale_jitter.draw(region_height, region_width, jitter_rng)
        flip = "none"
        if self.flip != "none":
            flip = self.flip if required_rng(rng, f"the flip {self.flip!r}").random() < 0.5 else "none"
        return Transform((height, width), output_size, flip, region, resized, offset)


def required_rng(rng: np.random.Generator | None, what: str) -> np.random.Generator:
    """The generator.

    Raises:
        ValueError: there is none; names what it would draw.
    """
    if rng is None:
        raise ValueError(f"a random generator is needed to draw {what}")
    return rng
