"""Cropping, resizing, padding and flipping of images, boxes and masks, numerically equal to detectron2.

A `Transform` is drawn once per image and then applied to the image, its boxes and masks. Masks are never transformed as
full images: cropping, nearest resizing and flipping only select pixels, so the transform is passed on as the source row
and source column of every output row and column. The augmentations that draw it are in `bcnet.data.augmentation`.

Letters: G boxes, H x W source image, h x w transformed image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

FLIPS = ("none", "horizontal", "vertical")
PAD_VALUE = 128  # value of padded pixels, as in detectron2's `FixedSizeCrop`


def resized_size(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """Size (h, w) after scaling the short side to `short_side`, with the long side at most `max_size`.

    Floating point operations and rounding (half up) follow detectron2's `ResizeShortestEdge.get_output_shape`, so that
    sizes are equal to the pixel; but no side is less than 1. A short side of 0 keeps the size.
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
    """A crop, a resize, a second crop with padding on the right and at the bottom, and a flip, in this order.

    Attributes:
        input_size: (H, W).
        output_size: (h, w).
        flip: "none", "horizontal" or "vertical".
        region: the crop (x, y, width, height) of the source image, in pixels; None is the whole image.
        resized_size: height and width after the resize; None is the output size.
        offset: (x, y) of the output's first pixel in the resized image. Beyond the resized image, the output is padded
            with `PAD_VALUE`.
    """

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    flip: str = "none"
    region: tuple[int, int, int, int] | None = None
    resized_size: tuple[int, int] | None = None
    offset: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.flip not in FLIPS:
            raise ValueError(f"flip must be one of {', '.join(FLIPS)}, got {self.flip!r}")
        if min(*self.output_size, *self.input_size, *self._resized) < 1:
            raise ValueError(
                f"sizes must be at least 1 x 1 pixel, got {self.input_size} -> {self._resized} -> {self.output_size}"
            )
        (x, y, width, height), (source_height, source_width) = self._region, self.input_size
        if not (0 <= x < x + width <= source_width and 0 <= y < y + height <= source_height):
            raise ValueError(f"the region (x, y, width, height) {self.region} must lie in the image {self.input_size}")
        if not (0 <= self.offset[0] < self._resized[1] and 0 <= self.offset[1] < self._resized[0]):
            raise ValueError(f"the offset (x, y) {self.offset} must lie in the resized image {self._resized}")

    @property
    def _region(self) -> tuple[int, int, int, int]:
        return self.region or (0, 0, self.input_size[1], self.input_size[0])

    @property
    def _resized(self) -> tuple[int, int]:
        return self.resized_size or self.output_size

    def apply_image(self, image: np.ndarray | Image.Image) -> np.ndarray:
        """The image transformed with PIL's bilinear filter, as in detectron2: uint8 or float32 [h, w, 3].

        Args:
            image: uint8 or float [H, W, 3] in any channel order (channels are resized independently), or a PIL image.
                Floats are resized by the same filter and not rounded.

        Raises:
            ValueError: the image's size differs from the transform's input size.
        """
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                return self._apply_floats(image.astype(np.float32))
            image = Image.fromarray(image)
        if (image.height, image.width) != tuple(self.input_size):
            raise ValueError(f"the image has height and width {(image.height, image.width)}, not {self.input_size}")
        if self.region is not None:
            x, y, width, height = self.region
            image = image.crop((x, y, x + width, y + height))
        height, width = self._resized
        if (height, width) != (image.height, image.width):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = self._cut_and_padded(image)
        # After the resize, as in detectron2: the filter's rounding is not symmetric.
        if self.flip == "horizontal":
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        elif self.flip == "vertical":
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return np.asarray(image)

    def _cut_and_padded(self, image: Image.Image) -> Image.Image:
        height, width = self.output_size
        if (height, width) == (image.height, image.width):
            return image
        x, y = self.offset
        image = image.crop((x, y, min(x + width, image.width), min(y + height, image.height)))
        if (height, width) == (image.height, image.width):
            return image
        bands = len(image.getbands())
        padded = Image.new(image.mode, (width, height), (PAD_VALUE,) * bands if bands > 1 else PAD_VALUE)
        padded.paste(image, (0, 0))
        return padded

    def _apply_floats(self, image: np.ndarray) -> np.ndarray:
        # PIL has no float colour images, only grey ones.
        channels = [
            self.apply_image(Image.fromarray(np.ascontiguousarray(image[:, :, channel])))
            for channel in range(image.shape[2])
        ]
        return np.stack(channels, axis=2)

    def apply_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes transformed and clipped to the output image, as detectron2 does: float64 [G, 4].

        Args:
            boxes: float [G, 4], xyxy in absolute pixels of the source image.
        """
        (x, y, region_width, region_height), (height, width) = self._region, self.output_size
        scale_x, scale_y = self._resized[1] * 1.0 / region_width, self._resized[0] * 1.0 / region_height
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - [x, y, x, y]
        boxes = boxes * [scale_x, scale_y, scale_x, scale_y] - [*self.offset, *self.offset]
        if self.flip == "horizontal":
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        elif self.flip == "vertical":
            boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        return np.clip(boxes, 0, [width, height, width, height])

    def source_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Source row of each output row, int64 [h], and source column of each output column, int64 [w].

        ``mask[rows][:, columns]`` is the mask after PIL's nearest resize, the crops and the flip. Each array is
        monotonic. A padded row has the source row H, a padded column the source column W: outside the image.
        """
        (x, y, region_width, region_height), (height, width) = self._region, self.output_size
        rows = y + _nearest_pixels(region_height, self._resized[0])
        columns = x + _nearest_pixels(region_width, self._resized[1])
        rows = _cut_and_padded_table(rows, self.offset[1], height, self.input_size[0])
        columns = _cut_and_padded_table(columns, self.offset[0], width, self.input_size[1])
        if self.flip == "vertical":
            rows = rows[::-1]
        elif self.flip == "horizontal":
            columns = columns[::-1]
        return rows, columns


def _cut_and_padded_table(table: np.ndarray, start: int, length: int, outside: int) -> np.ndarray:
    table = table[start : start + length]
    return np.pad(table, (0, length - len(table)), constant_values=outside)


def _nearest_pixels(source: int, target: int) -> np.ndarray:
    """The source pixel that PIL's nearest filter selects for each of `target` pixels: int64 [target]."""
    # PIL accumulates the step in floating point; calling PIL reproduces its rounding.
    line = Image.fromarray(np.arange(source, dtype=np.int32)[None])
    return np.asarray(line.resize((target, 1), Image.Resampling.NEAREST))[0].astype(np.int64)
