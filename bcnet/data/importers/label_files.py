"""Label images and binary masks from files: PNG, TIFF, also of several pages, and what else Pillow reads without loss.

Letters: H x W image.
"""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageSequence

from bcnet.data.findings import AnnotationError

_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000")


def read_label_pages(path: str) -> list[np.ndarray]:
    """The pages of a label image, one for most files: integers [H, W], 0 or more.

    Of a palette image these are the indices, not the colours. A grey image that was saved in colour is read as grey.

    Raises:
        AnnotationError: the file is missing or not an image, of a lossy format, in colour, or its values are not whole
            numbers from 0.
    """
    try:
        with Image.open(path) as image:
            if image.format in _LOSSY:
                raise AnnotationError(
                    f"a label image must be of a lossless format such as PNG or TIFF, it is {image.format}",
                    "label images of a lossy format",
                )
            return [_page(np.asarray(page)) for page in ImageSequence.Iterator(image)]
    except AnnotationError:
        raise
    except FileNotFoundError as error:
        raise AnnotationError("there is no such file", "label images that do not exist") from error
    except Exception as error:  # decoders raise all kinds on damaged files
        raise AnnotationError(f"it cannot be read: {error}", "unreadable label images") from error


def _page(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3:
        colors = values[..., : 3 if values.shape[2] > 2 else 1]
        if (colors != colors[..., :1]).any():
            raise AnnotationError(
                f"a label image has one value for each pixel, it has {values.shape[2]} channels that differ",
                "label images in colour",
            )
        values = colors[..., 0]
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        whole = values.astype(np.int64)
        if not np.isfinite(values).all() or (whole != values).any():
            raise AnnotationError("its values are not whole numbers", "label images without whole numbers")
        values = whole
    if values.dtype.kind == "i" and values.min() < 0:
        raise AnnotationError(f"its values must not be negative, the least is {values.min()}", "negative labels")
    return values


def read_binary_mask(path: str) -> np.ndarray:
    """A mask of one object, all pixels above 0: uint8 [H, W].

    Raises:
        AnnotationError: as `read_label_pages`, or the file has several pages.
    """
    pages = read_label_pages(path)
    if len(pages) > 1:
        raise AnnotationError(f"a mask of one object has one page, {os.path.basename(path)} has {len(pages)}", "stacks")
    return (pages[0] > 0).astype(np.uint8)
