"""Image files and PIL images: decoding to 8-bit RGB, with the EXIF orientation applied.

Letters: H x W image.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from bcnet.data.records import ImageRecord

MAX_IMAGE_PIXELS = 178_956_970  # default of INPUT.MAX_IMAGE_PIXELS: Pillow's decompression bomb limit

# Suffixes that a folder is searched for; a file given by name is recognised by its content, whatever its suffix.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".ico", ".pcx", ".qoi", ".sgi", ".dds", ".psd"),
)

_EXIF_ORIENTATION = 0x0112
_UNDO_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = (5, 6, 7, 8)
_IMAGE_WIDTH, _IMAGE_LENGTH, _BITS_PER_SAMPLE = 256, 257, 258  # TIFF tags
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # formats whose images of mode "I" (int32) hold 16-bit values

# Formats that Pillow reads only with another package or in other versions: (offset, magic bytes, description).
_FOREIGN_FORMATS = (
    (4, (b"ftypavif", b"ftypavis"), "AVIF, which needs Pillow 11.3 or newer"),
    (4, tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
     "HEIC, which needs the package pillow-heif (pip install pillow-heif)"),
    (0, (b"\xff\x0a", b"\x00\x00\x00\x0cJXL "), "JPEG XL; convert it to PNG or JPEG"),
)  # fmt: skip

_pillow_limit = threading.Lock()


class UnreadableImageError(ValueError):
    """An image that is missing, empty, truncated, too large, not an image, or has values of unknown range."""


def open_image(file: str | BinaryIO, name: str | None = None, *, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """Decodes an image file and converts it with `to_rgb`; the first frame or page if it has several.

    HEIC files are read if the package pillow-heif is installed.

    Args:
        file: a path, or a file object in binary mode.
        name: name of the image in errors; default: `file`.
        max_pixels: images with more pixels are rejected before decoding; 0 is no limit.

    Returns:
        Image.Image: mode "RGB".

    Raises:
        UnreadableImageError: the file is missing, cannot be decoded, is too large, or has values of unknown range.
    """
    with _unreadable(name or file), _raised_pillow_limit(max_pixels), _open_identified(file) as image:
        if 0 < max_pixels < image.width * image.height:
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are more than {max_pixels}")
        return _to_rgb(image)


def read_image(file_name: str, format: str = "BGR", *, max_pixels: int = MAX_IMAGE_PIXELS) -> np.ndarray:
    """Reads an image file with `open_image` as an array: uint8 [H, W, 3], in "BGR" or "RGB" order.

    Raises:
        UnreadableImageError: as `open_image`.
        ValueError: another format.
    """
    order = channel_order(format)
    return np.ascontiguousarray(np.asarray(open_image(file_name, max_pixels=max_pixels))[:, :, order])


def open_record_image(record: ImageRecord, *, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """Decodes the image of a record with `open_image`.

    Raises:
        UnreadableImageError: as `open_image`.
        ValueError: the image's size differs from the record's.
    """
    image = open_image(record.file_name, max_pixels=max_pixels)
    if (image.height, image.width) != (record.height, record.width):
        raise ValueError(
            f"{record.file_name!r} is {image.width} x {image.height} pixels (after EXIF orientation), but "
            f"{record.annotation_file or 'its record'} says {record.width} x {record.height} for image "
            f"{record.image_id!r}"
        )
    return image


def image_size(file_name: str) -> tuple[int, int]:
    """(height, width) of an image file after its EXIF orientation, as `open_image` decodes it; reads the header alone.

    Raises:
        UnreadableImageError: the file is missing or not an image.
    """
    with _unreadable(file_name), _raised_pillow_limit(0), _open_identified(file_name) as image:
        orientation = None
        with contextlib.suppress(Exception):
            orientation = image.getexif().get(_EXIF_ORIENTATION)
        tags = getattr(image, "tag_v2", {})  # of a TIFF, whose size Pillow has turned already, in some versions
        sides = tags.get(_IMAGE_LENGTH, image.height), tags.get(_IMAGE_WIDTH, image.width)
        return (sides[1], sides[0]) if orientation in _SIDES_SWAPPED else sides


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as "RGB", with its EXIF orientation applied.

    Up to rounding, values equal those of `cv2.imread`: transparency is dropped, palettes are looked up, and 12 or 16
    bits are reduced to the upper 8.

    Raises:
        UnreadableImageError: it cannot be decoded (PIL decodes lazily), or its values (32-bit integers or floats) have
            an unknown range.
    """
    with _unreadable(getattr(image, "filename", None) or f"PIL image of mode {image.mode}"):
        return _to_rgb(image)


def channel_order(format: str) -> slice:
    """The slice that reorders RGB channels to a format, "BGR" or "RGB".

    Raises:
        ValueError: another format.
    """
    if format not in ("BGR", "RGB"):
        raise ValueError(f"the image format must be 'BGR' or 'RGB', got {format!r}")
    return slice(None, None, -1 if format == "BGR" else 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    # Must come first: Pillow's TIFF reader applies the orientation while decoding, and then removes the tag.
    image.load()
    orientation = None
    with contextlib.suppress(Exception):  # broken EXIF data does not make the pixels unreadable
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    pixels = _eight_bit_rgb(image)
    return pixels.transpose(_UNDO_ORIENTATION[orientation]) if orientation in _UNDO_ORIENTATION else pixels


def _eight_bit_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BIT_FORMATS):
        values = np.asarray(image) >> (_bits_per_sample(image) - 8)
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floats"
        raise ValueError(f"its values are {kind} (mode {image.mode!r}), of no known range; scale them to 8 or 16 bits")
    return (image.convert("LA") if image.mode == "La" else image).convert("RGB")


def _bits_per_sample(image: Image.Image) -> int:
    """12 for TIFF files with this tag, otherwise 16: Pillow scales the other formats itself."""
    tags = getattr(image, "tag_v2", {})
    return 12 if tuple(tags.get(_BITS_PER_SAMPLE, ())) == (12,) else 16


@contextlib.contextmanager
def _unreadable(name: object) -> Iterator[None]:
    """Converts every error of the block to an `UnreadableImageError`: decoders raise all kinds on damaged files."""
    try:
        yield
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"cannot read the image {name!r}: {error}; INPUT.MAX_IMAGE_PIXELS is the limit, 0 removes it"
        ) from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__  # without the file's name
        raise UnreadableImageError(f"cannot read the image {name!r}: {reason}") from error


@contextlib.contextmanager
def _raised_pillow_limit(max_pixels: int) -> Iterator[None]:
    """Disables Pillow's limit on the image size, a global variable, if `max_pixels` is higher."""
    own = Image.MAX_IMAGE_PIXELS
    if own is None or 0 < max_pixels <= 2 * own:  # Pillow warns at its limit and raises at twice the limit
        yield
        return
    with _pillow_limit:
        own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = own


def _open_identified(file: str | BinaryIO) -> Image.Image:
    """`Image.open`, with the reason in the error if the format is unknown."""
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        head = _first_bytes(file)
        foreign = foreign_format(head)
        if foreign is not None and "HEIC" in foreign and _heif_opener_registered():
            return Image.open(file)
        if foreign is None and _is_video_container(head):
            foreign = "a video, and no image; if it was given as one, it is damaged or incomplete"
        reason = f"it is {foreign}" if foreign else "not an image that Pillow knows" if head else "the file is empty"
        raise UnidentifiedImageError(reason) from None


def foreign_format(head: bytes) -> str | None:
    """The format of a file's first bytes and what Pillow needs to read it; None for formats that Pillow supports."""
    for offset, beginnings, description in _FOREIGN_FORMATS:
        if head[offset:].startswith(beginnings):
            return description
    return None


def _is_video_container(head: bytes) -> bool:
    """Whether a file begins as MP4 or QuickTime, Matroska or WebM, or AVI does."""
    return head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3") or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def _first_bytes(file: str | BinaryIO) -> bytes:
    if isinstance(file, (str, os.PathLike)):
        with open(file, "rb") as opened:
            return opened.read(32)
    file.seek(0)
    return file.read(32)


def _heif_opener_registered() -> bool:
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True
