"""COCO run-length encoding (RLE) of masks: from windows, from COCO segmentations (polygons, RLE), and to JSON.

An `RLE` is pycocotools' compressed form, ``{"size": [H, W], "counts": bytes}``; JSON carries the counts
as ASCII text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from numbers import Integral
from typing import TypedDict

import numpy as np
from pycocotools import mask as coco_mask

# A vertex this many image sides outside the image is a corrupt file, not a shape that crosses the edge;
# pycocotools would trace the line to it in steps of a fifth of a pixel.
MAX_SIDES_OUTSIDE = 10
MAX_PIXELS = 2**31 - 1  # of an image; pycocotools counts them in 32 bits


class RLE(TypedDict):
    """A compressed run-length encoding of a full-image mask, the format of pycocotools.

    size: the image's [H, W]; counts: the compressed runs, down the columns, as bytes or ASCII text.
    """

    size: list[int]
    counts: str | bytes


def encode_window(mask: np.ndarray, x0: int, y0: int, image_size: tuple[int, int]) -> RLE:
    """Encodes a mask that is zero outside a window, in time proportional to the window.

    Args:
        mask: bool or uint8 [h, w], the window's pixels.
        x0, y0: image coordinates of the window's first pixel; the window lies inside the image.
        image_size: (H, W).

    Returns:
        the compressed RLE of the full-image mask, the bytes that `pycocotools.mask.encode` gives.
    """
    height, width = image_size
    # COCO runs go down the columns: one row of zeros above and below turns each run into a +1 and a -1.
    columns = np.pad(np.asarray(mask, dtype=np.int8).T, ((0, 0), (1, 1)))
    steps = np.diff(columns, axis=1)
    column, row = np.nonzero(steps)
    edges = (x0 + column) * height + y0 + row  # starts and ends alternate
    if len(edges) > 2:
        # A run through the last row that continues in the first row of the next column is one run.
        joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    if counts[-1] == 0:  # the mask ends with the image's last pixel
        counts = counts[:-1]
    return _compressed(counts, height, width)


class SegmentationError(ValueError):
    """An invalid segmentation: the message has the actual value, `reason` the kind of fault, for counting."""

    # The message comes first and suffices: data loader workers re-create exceptions from their message alone.
    def __init__(self, message: str, reason: str = "malformed segmentation") -> None:
        super().__init__(message)
        self.reason = reason


def decode_window(rle: RLE, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Pixels [y0, y1) x [x0, x1) of a compressed RLE mask, in time proportional to the window's columns.

    Returns:
        uint8 [y1 - y0, x1 - x0], 0 or 1: equal to a crop of `pycocotools.mask.decode`.
    """
    height = rle["size"][0]
    edges = np.cumsum(compressed_runs(rle["counts"]))
    first, last = x0 * height, x1 * height
    # Runs that lie in the window's columns, and the value of the first of them (runs alternate, zeros first).
    begin, end = np.searchsorted(edges, [first, last], side="right")
    inside = np.concatenate([[first], edges[begin:end], [last]])
    values = ((np.arange(len(inside) - 1) + begin) & 1).astype(np.uint8)
    columns = np.repeat(values, np.diff(inside)).reshape(x1 - x0, height)
    return columns[:, y0:y1].T


def segmentation_to_rle(segmentation: Sequence | Mapping | None, height: int, width: int) -> RLE:
    """The mask of a COCO annotation, rasterised as pycocotools does, as one compressed RLE.

    Args:
        segmentation: a list of polygons, each a flat list x0, y0, x1, y1, ... of at least three points in
            absolute pixels, whose union is the mask; or a compressed RLE (counts text or bytes); or an
            uncompressed RLE (counts a list of run lengths).
        height, width: of the image.

    Returns:
        the RLE, ``{"size": [H, W], "counts": bytes}``, without empty runs. A shape too thin or too far outside
        to cover a pixel's centre gives a mask of no pixels, which is not an error.

    Raises:
        SegmentationError: (a ValueError) anything else, with the value that is wrong. pycocotools itself
            reads four numbers as a box, drops an odd last coordinate, and reads past the end of a truncated RLE.
    """
    height, width = _image_side("height", height), _image_side("width", width)
    if height * width > MAX_PIXELS:
        raise SegmentationError(f"an image of {width} x {height} pixels is too large for an RLE", "image too large")
    if isinstance(segmentation, dict):
        return _checked_rle(segmentation, height, width)
    if segmentation is None or (isinstance(segmentation, (list, tuple)) and not segmentation):
        raise SegmentationError(f"there is no segmentation, only {segmentation}", "no segmentation")
    if not isinstance(segmentation, (list, tuple)):
        raise SegmentationError(
            f"segmentation must be a list of polygons or an RLE, got {type(segmentation).__name__} "
            f"{_short(segmentation)}",
            "segmentation neither polygons nor RLE",
        )
    polygons = [checked_polygon(polygon, height, width) for polygon in segmentation]
    # The stubs know polygons of whole numbers only; pycocotools converts to float64.
    rles: list[RLE] = coco_mask.frPyObjects(polygons, height, width)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return rles[0] if len(rles) == 1 else coco_mask.merge(rles)


def rle_to_json(rle: RLE) -> RLE:
    """A compressed RLE with its counts as text, for JSON; the inverse of `segmentation_to_rle`."""
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts if isinstance(counts, str) else counts.decode("ascii"),
    }


def rle_union(rles: Sequence[RLE]) -> RLE:
    """The union of compressed RLE masks of one image, at least one, without empty runs."""
    return rles[0] if len(rles) == 1 else coco_mask.merge(list(rles))


def rle_intersection(first: RLE, second: RLE) -> RLE:
    """The pixels of both of two compressed RLE masks."""
    return coco_mask.merge([first, second], intersect=True)


def rle_difference(rle: RLE, other: RLE) -> RLE:
    """The pixels of a compressed RLE mask that are not of another one."""
    height, width = other["size"]
    runs = compressed_runs(other["counts"])
    complement = runs[1:] if runs[0] == 0 else np.concatenate([[0], runs])
    if len(complement) == 0:
        complement = np.array([height * width])
    inverse = coco_mask.frPyObjects({"size": [height, width], "counts": complement.tolist()}, height, width)
    return rle_intersection(rle, inverse)


def box_rle(x0: int, y0: int, x1: int, y1: int, image_size: tuple[int, int]) -> RLE:
    """The RLE of pixel columns x0..x1-1 and rows y0..y1-1, clipped to an image of size (H, W)."""
    height, width = image_size
    x0, x1 = (min(max(x, 0), width) for x in (x0, x1))
    y0, y1 = (min(max(y, 0), height) for y in (y0, y1))
    columns, rows = x1 - x0, y1 - y0
    # The counts are composed here, because nearly all are equal: from the fourth on, pycocotools stores the
    # difference to the run before the last, which is 0 from column to column.
    if columns <= 0 or rows <= 0:
        text = _count_text(height * width)
    else:
        before, after = x0 * height + y0, (width - x1) * height + height - y1
        if rows == height:  # the columns join to one run
            rows, columns = columns * height, 1
        text = _count_text(before) + _count_text(rows)
        if columns > 1:
            gap = height - rows
            text += _count_text(gap) + b"0" * (2 * columns - 3)
            after_text = _count_text(after - gap)
        else:
            after_text = _count_text(after)
        text += after_text if after else b""
    return {"size": [height, width], "counts": text}


def _count_text(number: int) -> bytes:
    """One number of compressed counts: groups of 5 bits, least significant first, the highest with the sign."""
    characters = bytearray()
    while True:
        group, number = number & 31, number >> 5
        # Done when the rest is the sign extension of this group.
        done = number == (-1 if group & 16 else 0)
        characters.append(48 + group + (0 if done else 32))
        if done:
            return bytes(characters)


def _image_side(name: str, value) -> int:
    if type(value) is int and value > 0:  # the usual case, and much faster than isinstance with Integral
        return value
    if not isinstance(value, Integral) or isinstance(value, bool) or value <= 0:
        raise SegmentationError(
            f"the image's {name} must be a whole number of pixels, at least 1, got {value!r}", "image without a size"
        )
    return int(value)


def polygon_fault(polygon: Sized) -> str | None:
    """What is wrong with the length of a flat polygon x0, y0, x1, y1, ..., or None."""
    if len(polygon) % 2:
        return "an odd number of coordinates"
    return "fewer than 3 points" if len(polygon) < 6 else None


def checked_polygon(polygon: Sequence, height: int, width: int) -> np.ndarray:
    """A polygon of an image as float64 [2 * points].

    Raises:
        SegmentationError: it is not a flat list of at least 3 points with finite coordinates near the image.
    """
    try:
        points = np.asarray(polygon)
    except ValueError:  # lists of different lengths inside
        points = np.empty((0, 0))
    if points.ndim != 1 or (points.size and points.dtype.kind not in "iuf"):
        raise SegmentationError(
            f"a polygon must be a flat list of numbers x0, y0, x1, y1, ..., got {_short(polygon)}",
            "polygon not a flat list of numbers",
        )
    fault = polygon_fault(points)
    if fault is not None:
        raise SegmentationError(
            f"a polygon needs at least 3 points, an even count of 6 numbers or more, got {len(points)}: "
            f"{_short(polygon)}",
            f"polygon with {fault}",
        )
    points = points.astype(np.float64, copy=False)
    limit = MAX_SIDES_OUTSIDE * max(height, width, 100)
    # Written so that NaN fails too.
    if not np.abs(points).max() <= limit:
        raise SegmentationError(
            f"a polygon of an image of {width} x {height} pixels has the coordinate "
            f"{points[~(np.abs(points) <= limit)][0]}",
            "polygon with a coordinate far outside the image",
        )
    return points


def _checked_rle(rle: Mapping, height: int, width: int) -> RLE:
    if "size" not in rle or "counts" not in rle:
        raise SegmentationError(
            f"an RLE needs the keys size and counts, got {_short(sorted(map(str, rle)))}", "RLE without size or counts"
        )
    size, counts = rle["size"], rle["counts"]
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise SegmentationError(
            f"the RLE's size [height, width] is {_short(size)}, the image's is [{height}, {width}]",
            "RLE of another size than the image",
        )
    runs = compressed_runs(counts) if isinstance(counts, (str, bytes)) else _uncompressed_runs(counts)
    if len(runs) == 0 or runs.min() < 0 or runs.max() > height * width or runs.sum() != height * width:
        raise SegmentationError(
            f"the RLE's runs must sum to {height} x {width} = {height * width} pixels, none of them negative; "
            f"got {len(runs)} runs: {_short(runs.tolist())}",
            "RLE whose runs do not fill the image",
        )
    if isinstance(counts, (str, bytes)) and runs[1:].all():
        return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
    return _compressed(_without_empty_runs(runs), height, width)


def _compressed(runs: np.ndarray, height: int, width: int) -> RLE:
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)


def _without_empty_runs(runs: np.ndarray) -> np.ndarray:
    """Joins the runs on both sides of an empty run: pycocotools' merge stops where both masks have an empty run."""
    edges, times = np.unique(np.cumsum(runs[:-1]), return_counts=True)
    total = runs.sum()
    edges = edges[(times % 2 == 1) & (edges < total)]
    return np.diff(np.concatenate([[0], edges, [total]]))


def compressed_runs(counts: str | bytes) -> np.ndarray:
    """Run lengths of compressed counts, zeros first, down the columns: int64 [runs].

    A number is up to 7 characters of 5 bits each, least significant first; from the fourth on, it is the
    difference to the run before the last (`rleFrString` of pycocotools' maskApi).

    Raises:
        SegmentationError: the text is not of this form.
    """
    text = counts.encode("utf-8", "replace") if isinstance(counts, str) else counts
    characters = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if len(characters) == 0:
        return characters
    last = np.flatnonzero((characters & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if characters.min() < 0 or characters.max() > 63 or characters[-1] & 32 or lengths.max() > 7:
        raise SegmentationError(
            f"these are not the counts of a compressed RLE, or they are truncated: {_short(counts)}",
            "RLE with unreadable counts",
        )
    place = np.arange(len(characters)) - np.repeat(first, lengths)
    values = np.add.reduceat((characters & 31) << (5 * place), first)
    values -= np.where(characters[last] & 16, 1 << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _uncompressed_runs(counts) -> np.ndarray:
    try:
        runs = np.asarray(counts)
    except ValueError:
        runs = np.empty((0, 0))
    if runs.ndim != 1 or (runs.size and runs.dtype.kind not in "iu"):
        raise SegmentationError(
            f"an RLE's counts must be text, bytes or a flat list of whole numbers, got {_short(counts)}",
            "RLE with unreadable counts",
        )
    return runs.astype(np.int64)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
