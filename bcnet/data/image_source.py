"""Image input: numpy arrays, tensors, PIL images, files and URLs as arrays.

Letters: H x W image.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, TypeGuard, Union

import numpy as np
from PIL import Image

from bcnet.data.images import MAX_IMAGE_PIXELS, UnreadableImageError, channel_order, open_image, to_rgb
from bcnet.structures.source_image import SourceImage

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch import Tensor

ImageSource = Union[np.ndarray, "Tensor", Image.Image, str, os.PathLike]

DOWNLOAD_SECONDS = 30.0
DOWNLOAD_BYTES = 200 * 2**20


def image_array(
    source: ImageSource, format: str = "BGR", wanted: str = "RGB", *, max_pixels: int = MAX_IMAGE_PIXELS
) -> np.ndarray:
    """Converts an image of any supported type to an array: uint8 or float [H, W, 3], 0..255.

    Args:
        source: one of

            - numpy array [H, W, 3], uint8 or float, values 0..255, channels in the order of `format`, as returned by
              `cv2.imread` (BGR) and `np.asarray` of a PIL image (RGB). Grey images [H, W] or [H, W, 1] are repeated to
              three channels, the fourth channel of [H, W, 4] is dropped, uint16 is reduced to its upper 8 bits, and
              bool is black and white;
            - tensor [3, H, W], [1, H, W] or [4, H, W] with the same dtypes and values, on any device;
            - PIL image, or path of an image file, or its URL, ``http://`` or ``https://``: modes are converted by
              `bcnet.data.images.to_rgb`, and the EXIF orientation is applied.
        format: channel order of arrays and tensors, "BGR" or "RGB". Not used for the other types.
        wanted: channel order of the result.
        max_pixels: images with more pixels are rejected; 0 is no limit.

    Returns:
        np.ndarray: if possible a view of the array or tensor.

    Raises:
        UnreadableImageError: a PIL image, file or URL that cannot be read or is not an image (it is a ValueError).
        ValueError: unsupported type, shape, dtype or format, or values outside 0..255.
    """
    channel_order(format)
    if isinstance(source, np.ndarray):
        pixels, order = _checked(source), format
    elif _is_tensor(source):
        pixels, order = _checked(_channels_last(source)), format
    elif isinstance(source, Image.Image):
        pixels, order = np.asarray(to_rgb(source)), "RGB"
    elif isinstance(source, (str, os.PathLike)):
        pixels, order = np.asarray(_open(os.fspath(source), max_pixels)), "RGB"
    else:
        raise ValueError(
            "an image is a numpy array [H, W, 3], a tensor [3, H, W], a PIL image, a path or a URL, got "
            f"{type(source).__name__}"
        )
    if 0 in pixels.shape:
        raise ValueError(f"the image must have at least one pixel, got shape {pixels.shape}")
    return pixels if order == wanted else pixels[:, :, ::-1]


def rgb_image(source: ImageSource, format: str = "BGR", *, max_pixels: int = MAX_IMAGE_PIXELS) -> np.ndarray:
    """An image of any kind as uint8 [H, W, 3] RGB, for pictures: `image_array` with floats rounded.

    Raises:
        UnreadableImageError, ValueError: as `image_array`.
    """
    pixels = image_array(source, format, max_pixels=max_pixels)
    return np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else pixels.round().astype(np.uint8))


def path_of(source: ImageSource) -> str | None:
    """File or URL of an image; None for arrays, and for PIL images that were not read from a file."""
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "filename", None)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) and os.fspath(name) else None


def source_image(source: ImageSource, format: str, max_pixels: int) -> SourceImage:
    """What a result keeps of its image: the name of a file or URL, which is read again for pictures, or an array."""
    return SourceImage(functools.partial(rgb_image, source, format, max_pixels=max_pixels), path_of(source))


def is_url(name: str) -> bool:
    """True for http and https URLs."""
    return name.startswith(("http://", "https://"))


def _open(name: str, max_pixels: int) -> Image.Image:
    if is_url(name):
        return open_image(_download(name), name, max_pixels=max_pixels)
    if os.path.isdir(os.path.expanduser(name)):
        raise UnreadableImageError(
            f"{name!r} is a folder, and an image was expected: bcnet predict --input takes folders, and in Python "
            f"model(bcnet.data.find_images([{name!r}]))"
        )
    return open_image(os.path.expanduser(name), max_pixels=max_pixels)


def _download(url: str) -> io.BytesIO:
    request = urllib.request.Request(url, headers={"User-Agent": "bcnet"})  # some servers reject Python's default
    try:
        with urllib.request.urlopen(request, timeout=DOWNLOAD_SECONDS) as answer:
            content = answer.read(DOWNLOAD_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise UnreadableImageError(f"cannot download the image {url!r}: {error}") from error
    if len(content) > DOWNLOAD_BYTES:
        raise UnreadableImageError(f"the image {url!r} is larger than {DOWNLOAD_BYTES // 2**20} MiB")
    return io.BytesIO(content)


def _is_tensor(source: ImageSource) -> TypeGuard[Tensor]:
    # Who has a tensor has imported torch.
    return "torch" in sys.modules and isinstance(source, sys.modules["torch"].Tensor)


def _channels_last(tensor: Tensor) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        advice = "; an image with the channels last is a numpy array here" if tensor.shape[-1:] in ((3,), (4,)) else ""
        advice = "; give a batch as a list, list(images)" if tensor.ndim == 4 else advice
        raise ValueError(f"an image tensor must be [1, 3 or 4, H, W], got shape {tuple(tensor.shape)}{advice}")
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # not supported by numpy
        tensor = tensor.float()
    return tensor.permute(1, 2, 0).numpy()


def _checked(image: np.ndarray) -> np.ndarray:
    """A numpy image as uint8 or float [H, W, 3]."""
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        advice = "; give a batch as a list, list(images)" if image.ndim == 4 else ""
        raise ValueError(f"the image must be [H, W, 3] with at least one pixel, got shape {image.shape}{advice}")
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        return (pixels >> 8).astype(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"the image must be uint8, uint16, bool or float 0..255, got {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):  # also rejects NaN
        raise ValueError(f"the image's values must lie in 0..255, got {low:g}..{high:g}")
    if 0 < high <= 1:
        logger.warning("The image's values lie in %g..%g; 0..255 is expected, this image is black", low, high)
    return pixels
