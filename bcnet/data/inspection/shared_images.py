"""Images that two data sets share, such as a training and a test split: by content of the file, or by looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from bcnet.data.duplicates import content_groups
from bcnet.data.records import ImageRecord

_SIDE = 16  # of the thumbnail whose gradients are compared
_DIFFERENT_BITS = 8  # of 256, below which two images look alike
_FLAT = 16  # bits that an image must have set, and not set, to be told from others by its looks
_AT_ONCE = 512


class SharedImage(NamedTuple):
    """An image of one data set that another one has too.

    Attributes:
        first, second: the records.
        identical: whether the files are; otherwise the images look alike, such as a copy of another quality or size.
    """

    first: ImageRecord
    second: ImageRecord
    identical: bool


def shared_images(first: Sequence[ImageRecord], second: Sequence[ImageRecord]) -> list[SharedImage]:
    """The images of the first data set that the second has too; all images are decoded, in a low resolution."""
    records = [*first, *second]
    shared: dict[int, SharedImage] = {}
    for group in content_groups([record.file_name for record in records]):
        others = [position for position in group if position >= len(first)]
        for position in group:
            if position < len(first) and others:
                shared[position] = SharedImage(records[position], records[others[0]], True)
    hashes = [_gradient_bits(record.file_name) for record in records]
    usable = [i for i, bits in enumerate(hashes) if bits is not None and i not in shared]
    mine = [i for i in usable if i < len(first)]
    theirs = [i for i in usable if i >= len(first)]
    if mine and theirs:
        other_bits = np.stack([hashes[i] for i in theirs]).astype(np.float32)  # type: ignore[arg-type]
        for start in range(0, len(mine), _AT_ONCE):
            part = mine[start : start + _AT_ONCE]
            bits = np.stack([hashes[i] for i in part]).astype(np.float32)  # type: ignore[arg-type]
            distance = bits @ (1 - other_bits).T + (1 - bits) @ other_bits.T
            nearest = distance.argmin(axis=1)
            for i, j, bits_apart in zip(part, nearest.tolist(), distance.min(axis=1).tolist(), strict=True):
                if bits_apart < _DIFFERENT_BITS:
                    shared[i] = SharedImage(records[i], records[theirs[j]], False)
    return [shared[position] for position in sorted(shared)]


def _gradient_bits(path: str) -> np.ndarray | None:
    """Where the brightness of a 16 x 17 thumbnail rises to the right: bool [256]; None of flat or unreadable images."""
    try:
        with Image.open(path) as image:
            image.draft("L", (4 * _SIDE, 4 * _SIDE))
            thumbnail = np.asarray(image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX), dtype=np.int16)
    except Exception:  # decoders raise all kinds on damaged files, which are reported elsewhere
        return None
    bits = (np.diff(thumbnail, axis=1) > 0).ravel()
    return bits if _FLAT <= bits.sum() <= len(bits) - _FLAT else None
