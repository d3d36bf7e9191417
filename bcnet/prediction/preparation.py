"""Preparation of images for the detector: reading, resizing, and batches of images that are padded to one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bcnet.data import ImageSource, UnreadableImageError, image_array
from bcnet.data.augmentation import Augmentation
from bcnet.data.image_source import source_image
from bcnet.structures import SourceImage

BUFFERED_BATCHES = 16  # prepared images buffered until a batch of equal size is full, in batches


class Prepared(NamedTuple):
    """An image ready for the detector.

    Attributes:
        pixels: uint8 or float32 [3, h, w], the detector's input.
        size: height and width of the image itself.
        source: the image itself.
    """

    pixels: Tensor
    size: tuple[int, int]
    source: SourceImage


def prepare(
    image: ImageSource, format: str, *, augmentation: Augmentation, image_format: str, max_pixels: int
) -> Prepared:
    """Reads and resizes an image.

    Args:
        image, format: as `bcnet.data.image_source.image_array` takes them.
        augmentation: the resize of the test images.
        image_format: channel order that the detector takes, "BGR" or "RGB".
        max_pixels: a larger image file is unreadable; 0 is no limit.

    Raises:
        ValueError: as `image_array`.
    """
    pixels = image_array(image, format, image_format, max_pixels=max_pixels)
    height, width = pixels.shape[:2]
    pixels = augmentation.draw(height, width).apply_image(pixels)
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return Prepared(tensor, (height, width), source_image(image, format, max_pixels))


def equal_size_batches(
    images: Sequence[Any], prepare_image: Callable[[Any], Prepared], batch_size: int, divisor: int
) -> Iterator[tuple[list[int], list[Prepared]]]:
    """Positions and inputs of images of one padded size each.

    Args:
        images: what `prepare_image` takes.
        batch_size: maximum number of images in a batch.
        divisor: the detector pads height and width to multiples of it.

    Raises:
        ValueError: of `prepare_image`, with the image's place in the list.
    """
    buffered: dict[tuple[int, int], dict[int, Prepared]] = {}  # by padded size and position
    for index, image in enumerate(images):
        try:
            prepared = prepare_image(image)
        except ValueError as error:
            kind = UnreadableImageError if isinstance(error, UnreadableImageError) else ValueError
            raise kind(f"image {index} of {len(images)}: {error}") from error
        height, width = prepared.pixels.shape[1:]
        size = (-(-height // divisor), -(-width // divisor))
        buffered.setdefault(size, {})[index] = prepared
        if len(buffered[size]) == batch_size:
            full = size
        elif sum(map(len, buffered.values())) == BUFFERED_BATCHES * batch_size:
            full = max(buffered, key=lambda s: len(buffered[s]))
        else:
            continue
        group = buffered.pop(full)
        yield list(group), list(group.values())
    for group in buffered.values():
        yield list(group), list(group.values())
