"""Images as people have them: arrays, tensors, PIL images, files and addresses.

Letters: H x W image.
"""

from __future__ import annotations

import io
import logging
import os
import urllib.error
import urllib.request

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bcnet.data.mapper import UnreadableImageError, open_image

logger = logging.getLogger(__name__)

ImageSource = np.ndarray | Tensor | Image.Image | str | os.PathLike

FORMATS = ("BGR", "RGB")
# Modes of PIL whose values are 0..255 (or colours, or black and white); "I" and "F" have no range that is known.
PIL_MODES = ("RGB", "RGBA", "RGBX", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr", "LAB", "HSV")
DOWNLOAD_SECONDS = 30.0
DOWNLOAD_BYTES = 200 * 2**20


def image_array(source: ImageSource, format: str = "BGR", wanted: str = "RGB") -> np.ndarray:
    """An image of any kind as an array: uint8 or float [H, W, 3], 0..255.

    Args:
        source: one of

            - numpy array [H, W, 3], uint8 or float, values 0..255, channels in the order of `format`, as `cv2.imread`
              (BGR) and `np.asarray` of a PIL image (RGB) give it;
            - tensor [3, H, W], otherwise the same, on any device;
            - PIL image of 8 bits a channel; transparency is dropped, EXIF orientation is not looked at;
            - path of an image file, or its address, ``http://`` or ``https://``; EXIF orientation is applied.
        format: channel order of arrays and tensors, "BGR" or "RGB". The others know their own.
        wanted: channel order of the result.

    Returns:
        np.ndarray: the channel order is a view where it had to be turned round.

    Raises:
        UnreadableImageError: a file or address that cannot be read or is no image (a ValueError too).
        ValueError: another type, shape, dtype, mode or format, or values outside 0..255.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be 'BGR' or 'RGB', got {format!r}")
    if isinstance(source, np.ndarray):
        _check_array(source)
        pixels, order = source, format
    elif isinstance(source, Tensor):
        pixels, order = _tensor_array(source), format
    elif isinstance(source, Image.Image):
        if source.mode not in PIL_MODES:
            raise ValueError(f"a PIL image must have 8 bits a channel, got mode {source.mode!r}")
        pixels, order = np.asarray(source.convert("RGB")), "RGB"
    elif isinstance(source, (str, os.PathLike)):
        pixels, order = _read(os.fspath(source)), "RGB"
    else:
        raise ValueError(
            "an image is a numpy array [H, W, 3], a tensor [3, H, W], a PIL image, a path or an address, got "
            f"{type(source).__name__}"
        )
    if 0 in pixels.shape:
        raise ValueError(f"the image must have at least one pixel, got shape {pixels.shape}")
    return pixels if order == wanted else pixels[:, :, ::-1]


def _read(name: str) -> np.ndarray:
    if name.startswith(("http://", "https://")):
        return np.asarray(open_image(_download(name), name))
    return np.asarray(open_image(os.path.expanduser(name)))


def _download(url: str) -> io.BytesIO:
    request = urllib.request.Request(url, headers={"User-Agent": "bcnet"})  # some servers refuse python's own name
    try:
        with urllib.request.urlopen(request, timeout=DOWNLOAD_SECONDS) as answer:
            content = answer.read(DOWNLOAD_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise UnreadableImageError(f"cannot download the image {url!r}: {error}") from error
    if len(content) > DOWNLOAD_BYTES:
        raise UnreadableImageError(f"the image {url!r} is larger than {DOWNLOAD_BYTES // 2**20} MiB")
    return io.BytesIO(content)


def _tensor_array(tensor: Tensor) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        advice = "; an image with the channels last is a numpy array here" if tensor.shape[-1:] == (3,) else ""
        advice = "; give a batch as a list, list(images)" if tensor.ndim == 4 else advice
        raise ValueError(f"an image tensor must be [3, H, W], got shape {tuple(tensor.shape)}{advice}")
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # numpy has none
        tensor = tensor.float()
    array = tensor.permute(1, 2, 0).numpy()
    _check_array(array)
    return array


def _check_array(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        advice = "; give a batch as a list, list(images)" if image.ndim == 4 else ""
        raise ValueError(f"the image must be [H, W, 3] with at least one pixel, got shape {image.shape}{advice}")
    if image.dtype == np.uint8:
        return
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"the image must be uint8 or float, 0..255, got {image.dtype}")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 255):  # also refuses nan
        raise ValueError(f"the image's values must lie in 0..255, got {low:g}..{high:g}")
    if 0 < high <= 1:
        logger.warning("The image's values lie in %g..%g; 0..255 is expected, this image is black", low, high)
