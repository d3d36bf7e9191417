"""Windows of large images, read without the rest: TIFF files by their strips or tiles; other formats as a whole.

Letters: H x W image, h x w window.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from bcnet.data.image_source import ImageSource, is_url, path_of, rgb_image
from bcnet.data.images import MAX_IMAGE_PIXELS

_CONTIGUOUS, _UPRIGHT = 1, 1  # TIFF's numbers, of PlanarConfiguration and Orientation
_GREY_AND_RGB = (1, 2)  # PhotometricInterpretation: black is zero, RGB


class ImageWindows:
    """An image that is read in windows; a context manager.

    A TIFF file of 8 or 16 bits, grey or RGB, is read by the strips or tiles that a window meets, if the package
    tifffile is there (extra ``tiles``): only the disk limits its size then. Any other image is read at once.

    Attributes:
        size: (H, W).

    Args:
        image: as `bcnet.data.image_source.image_array` takes it.
        format: channel order of arrays and tensors, "BGR" or "RGB".
        max_pixels: a larger image that cannot be read in windows is unreadable; 0 is no limit.

    Raises:
        ValueError: as `image_array`.
    """

    def __init__(self, image: ImageSource, format: str = "BGR", *, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
        path = path_of(image)
        self._file: Any = None if path is None or is_url(path) else _opened_tiff(path)
        self._pixels: np.ndarray | None = None
        if self._file is None:
            self._pixels = rgb_image(image, format, max_pixels=max_pixels)
            self.size = (self._pixels.shape[0], self._pixels.shape[1])
        else:
            page = self._file.pages[0]
            self.size = (page.imagelength, page.imagewidth)

    def read(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """The window of columns x0..x1-1 and rows y0..y1-1, which lies inside: uint8 [h, w, 3] RGB.

        Raises:
            ValueError: the file is damaged there.
        """
        if self._pixels is not None:
            return self._pixels[y0:y1, x0:x1]
        page = self._file.pages[0]
        height, width = self.size
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
        tall = min(tall, height) if not page.is_tiled else tall
        across = math.ceil(width / wide)
        window: np.ndarray = np.zeros((y1 - y0, x1 - x0, page.samplesperpixel), page.dtype)
        for row in range(y0 // tall, math.ceil(y1 / tall)):
            for column in range(x0 // wide, math.ceil(x1 / wide)):
                part = self._segment(page, row * across + column)
                top, left = row * tall, column * wide
                rows = slice(max(y0, top), min(y1, top + part.shape[0]))
                columns = slice(max(x0, left), min(x1, left + part.shape[1]))
                window[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0] = part[
                    rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
                ]
        if window.dtype == np.uint16:
            window = (window >> 8).astype(np.uint8)
        return np.repeat(window, 3, axis=2) if window.shape[2] == 1 else np.ascontiguousarray(window[:, :, :3])

    def _segment(self, page: Any, index: int) -> np.ndarray:
        """A strip or tile: [h, w, samples]; zeros where the file leaves it out."""
        handle = page.parent.filehandle
        handle.seek(page.dataoffsets[index])
        data = handle.read(page.databytecounts[index])
        try:
            segment, _, shape = page.decode(data or None, index, jpegtables=page.jpegtables)
        except Exception as error:  # decoders raise all kinds of errors
            raise ValueError(f"{page.parent.filehandle.path} is damaged: {error}") from error
        if segment is None:
            return np.zeros((*shape[1:3], page.samplesperpixel), page.dtype)
        return segment[0, : shape[1], : shape[2]]

    def __enter__(self) -> ImageWindows:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _opened_tiff(path: str) -> Any:
    """The open TIFF file, if its windows can be read; else None."""
    if not os.path.isfile(path) or not path.lower().endswith((".tif", ".tiff")):
        return None
    try:
        import tifffile
    except ImportError:
        return None
    try:
        file = tifffile.TiffFile(path)
    except (tifffile.TiffFileError, OSError):
        return None  # the reader of whole images names the fault
    page: Any = file.pages[0] if len(file.pages) == 1 else None
    orientation = None if page is None else page.tags.get("Orientation")
    if (
        page is not None
        and page.planarconfig == _CONTIGUOUS
        and page.photometric in _GREY_AND_RGB
        and page.dtype in (np.dtype("u1"), np.dtype("u2"))
        and page.samplesperpixel in (1, 3)
        and (orientation is None or orientation.value == _UPRIGHT)
    ):
        return file
    file.close()
    return None
