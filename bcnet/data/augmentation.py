"""Data augmentation of training images: random crop, resize, large-scale jitter, flip and colour jitter.

The augmentations and config keys are detectron2's; random numbers are drawn from a generator that the caller passes in.
Composition, which pastes objects before any of these, is in `bcnet.data.composition`.

Letters: H x W source image, h x w transformed image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bcnet.data.transforms import Transform, resized_size

CROP_TYPES = ("relative", "relative_range", "absolute", "absolute_range")
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # RGB weights of detectron2's `RandomSaturation`


@dataclass(frozen=True)
class ResizeShortestEdge:
    """Resizes the short side of an image to a drawn length.

    Attributes:
        short_sides: pixels; with "choice" one of them is drawn, with "range" they are the two ends of an inclusive
            interval. 0 keeps the image's size.
        max_size: upper bound of the long side.
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
        """Output size (h, w) of an image of height x width; `rng` is required if anything is random."""
        if len(set(self.short_sides)) == 1:
            short_side = self.short_sides[0]
        elif rng is None:
            raise ValueError(f"the short side is drawn from {tuple(self.short_sides)}: a random generator is required")
        elif self.sampling == "range":
            short_side = int(rng.integers(self.short_sides[0], self.short_sides[1] + 1))
        else:
            short_side = self.short_sides[int(rng.integers(len(self.short_sides)))]
        return resized_size(height, width, int(short_side), self.max_size)


@dataclass(frozen=True)
class RandomCrop:
    """Random crop of the source image: detectron2's `RandomCrop`.

    Attributes:
        type: "relative": `size` holds fractions of height and width. "relative_range": the fractions are drawn between
            `size` and 1. "absolute": `size` is height and width in pixels. "absolute_range": height and width are drawn
            independently between the two numbers of `size`. A crop is never larger than the image.
        size: two numbers.
    """

    type: str
    size: Sequence[float]

    def __post_init__(self) -> None:
        if self.type not in CROP_TYPES:
            raise ValueError(f"the crop type must be one of {', '.join(CROP_TYPES)}, got {self.type!r}")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """The crop (x, y, width, height) of an image of height x width."""
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
    keeping its aspect ratio. A result larger than `size` is cropped at random, a smaller one is padded.

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
    """Random brightness, contrast and saturation, as detectron2's `RandomBrightness` etc. apply them.

    Each is the range of a drawn intensity; 1 leaves the image unchanged. They are applied in this order.
    """

    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Applies drawn intensities to an image: uint8 [H, W, 3] RGB in and out."""
        brightness, contrast, saturation = (
            rng.uniform(*bounds) for bounds in (self.brightness, self.contrast, self.saturation)
        )
        values = np.arange(256, dtype=np.uint8)
        image = cv2.LUT(image, _blended(values, 0, brightness))
        image = cv2.LUT(image, _blended(values, image.mean(), contrast))
        return _blended(image, image.dot(_LUMINANCE)[:, :, None], saturation)


def _blended(pixels: np.ndarray, other: float | np.ndarray, weight: float) -> np.ndarray:
    """fvcore's `BlendTransform`: weight x pixels + (1 - weight) x other, clipped to uint8."""
    mixed = (1 - weight) * other + weight * pixels.astype(np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of an image: crop, resize and, in training, a flip with probability 1/2, and colour jitter.

    Attributes:
        resize: resize of the short side.
        flip: "none", "horizontal" or "vertical".
        crop: crop of the source image, before the resize.
        scale_jitter: replaces the resize.
        color_jitter: applied to the source image.
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
        """Whether objects may be cropped, so that boxes must be recomputed from the masks."""
        return self.crop is not None or self.scale_jitter is not None

    def draw(self, height: int, width: int, rng: np.random.Generator | None = None) -> Transform:
        """The transform of an image of height x width; `rng` is required if anything is random."""
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
    """Returns the generator.

    Raises:
        ValueError: it is None; names what it would draw.
    """
    if rng is None:
        raise ValueError(f"a random generator is required to draw {what}")
    return rng
