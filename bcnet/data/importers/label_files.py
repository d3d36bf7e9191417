"""Label images and binary masks from files: PNG, TIFF, also of several pages, and what else Pillow reads without loss.

Letters: H x W image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageSequence

from bcnet.data.findings import AnnotationError

_PLANAR, _SEPARATE, _BITS = 284, 2, 258  # tags of TIFF
Color = tuple[int, int, int]  # red, green, blue
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000")


def read_label_pages(path: str, colors: Mapping[Color, int] | None = None) -> list[np.ndarray]:
    """The pages of a label image, one for most files: integers [H, W], 0 or more.

    The planes of a TIFF in colour are pages: tifffile writes stacks of 3 or 4 pages so. Of a palette image these are
    the indices, not the colours. A grey image that was saved in colour is read as grey.

    Args:
        path: of the file.
        colors: the values of the colours of an image in colour; None: colours are an error.

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
            return [page for frame in ImageSequence.Iterator(image) for page in _pages(frame, colors)]
    except AnnotationError:
        raise
    except FileNotFoundError as error:
        raise AnnotationError("there is no such file", "label images that do not exist") from error
    except Exception as error:  # decoders raise all kinds on damaged files
        raise AnnotationError(f"it cannot be read: {error}", "unreadable label images") from error


def _pages(frame: Image.Image, colors: Mapping[Color, int] | None) -> list[np.ndarray]:
    """The label images of a frame: one, but for a stack of 3 or 4 pages that was written as the planes of a colour."""
    values = np.asarray(frame)
    if colors is not None and values.ndim == 3 and values.shape[2] > 2:
        numbers = _of_colors(values[..., :3], colors)
        return [_page(values) if numbers is None else numbers]
    tags = getattr(frame, "tag_v2", {})
    if values.ndim == 3 and tags.get(_PLANAR) == _SEPARATE and (values != values[..., :1]).any():
        if max(tags.get(_BITS, (8,))) > 8:  # which Pillow reduces to 8
            raise AnnotationError(
                f"it is a TIFF of {values.shape[2]} colour planes of 16 bits; write the stack in grey (tifffile: "
                "photometric='minisblack')",
                "16-bit stacks that are written as colours",
            )
        return [_page(plane) for plane in np.moveaxis(values, 2, 0)]
    return [_page(values)]


def _of_colors(values: np.ndarray, colors: Mapping[Color, int]) -> np.ndarray | None:
    """The values of the colours; None of a grey image whose greys are not among them."""
    found, places = np.unique(values.reshape(-1, 3), axis=0, return_inverse=True)
    numbers = [colors.get((red, green, blue)) for red, green, blue in found.tolist()]
    if None not in numbers:
        return np.array(numbers, dtype=np.uint8)[places.reshape(values.shape[:2])]
    if (found == found[:, :1]).all():
        return None
    unknown = found[numbers.index(None)].tolist()
    raise AnnotationError(f"its colour {unknown} is that of no label", "label images of unknown colours")


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
