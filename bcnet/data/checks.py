"""Consistency checks between masks and boxes while a file is read, with the likely cause of mismatches.

Boxes are xyxy here, except those of the records, which are COCO's xywh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.coco_json import Mask
from bcnet.data.findings import AnnotationError, Findings
from bcnet.data.records import ImageRecord
from bcnet.ops.rle import segmentation_to_rle

Box = tuple[float, float, float, float]

SLACK = 1.0  # pixels between a mask and its box that are attributed to rounding
COVERING = 2  # a polygon of more than so many times its longest side in area covers a pixel centre
_AGREEMENT = 0.5  # minimum IoU of the mask's extents and the box
_FRACTIONS = 1.001  # maximum coordinate of a file in fractions of the image size, with tolerance for rounding
_SAMPLES = 200  # maximum number of mismatched objects from which the likely cause is inferred
_PERCENT_OBJECTS, _PERCENT_SIDE = 20, 200  # minima; few objects or small images have small coordinates by chance


class _Sample(NamedTuple):
    """An object whose mask and box disagree."""

    extents: Box
    box: Box
    bbox: Sequence[float]  # xywh, as in the file
    record: ImageRecord
    segmentation: list | dict


class MaskBoxCheck:
    """Compares the masks of a file with their boxes.

    - A mask that lies entirely outside its box is a fault of the annotation.
    - A mask whose extents have an IoU below 0.5 with the box is noted, and so is one that covers no pixel centre.
    - A file with all coordinates in 0..1 is a fault; one with all in 0..100 on larger images is noted.

    Objects with a box of zero size are not compared.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._samples: list[_Sample] = []
        self._objects = 0
        self._first: tuple[str, Sequence[float]] = "", ()  # label and box of the first object
        self._largest = 0.0  # largest coordinate of all masks and boxes
        self._fractional = False
        self._smallest_side = float("inf")

    def compare(self, label: str, key: str, mask: Mask, bbox: Sequence[float], record: ImageRecord) -> None:
        """Compares one mask with its box (xywh).

        Raises:
            AnnotationError: the mask lies entirely outside the box.
        """
        if not covers_a_pixel(mask, record):
            self._findings.note(f"masks ({key}) that cover no pixel centre, not trained on", label, f"bbox is {bbox}")
        x, y, width, height = bbox
        if mask.extents is None or width == 0 or height == 0:
            return
        extents, box = mask.extents, (x, y, x + width, y + height)
        if not self._objects:
            self._first = label, bbox
        self._objects += 1
        self._largest = max(self._largest, extents[2], extents[3], box[2], box[3])
        self._smallest_side = min(self._smallest_side, record.height, record.width)
        if self._largest <= _FRACTIONS:
            self._fractional |= not all(float(value).is_integer() for value in bbox)
        if all(abs(first - second) <= SLACK for first, second in zip(extents, box, strict=True)):
            return  # the common case, cheaper than the IoU
        if _agree(extents, box):
            return
        if len(self._samples) < _SAMPLES:
            self._samples.append(_Sample(extents, box, bbox, record, mask.segmentation))
        spans = f"{key} spans x {extents[0]:g}..{extents[2]:g} and y {extents[1]:g}..{extents[3]:g}"
        if _are_apart(extents, box):
            raise AnnotationError(f"{spans}, outside its box {list(bbox)}", f"{key} outside its box")
        if min(*_sides(extents), *_sides(box)) > 2 * SLACK:  # in smaller ones the IoU is dominated by rounding
            what = "masks that disagree with their boxes (IoU of the mask's extents and the box below 0.5)"
            self._findings.note(what, label, f"{spans}, its box is {list(bbox)}")

    def add_agreeing(self, objects: int, largest: float, smallest_side: float) -> None:
        """Adds objects whose masks agree with their boxes: their number, largest coordinate and smallest image side."""
        self._objects += objects
        self._largest = max(self._largest, largest)
        self._smallest_side = min(self._smallest_side, smallest_side)

    def finish(self) -> None:
        """Adds the findings that concern the file as a whole."""
        if self._objects and self._fractional and self._largest <= _FRACTIONS:
            self._findings.fault(
                "annotations",
                AnnotationError(
                    f"all coordinates of all {self._objects} objects lie in 0..1 (bbox of {self._first[0]}: "
                    f"{self._first[1]}); likely cause: fractions of the image size instead of pixels",
                    "coordinates in 0..1",
                ),
                of_annotation=False,
            )
        elif self._objects >= _PERCENT_OBJECTS and self._largest <= 100 and self._smallest_side >= _PERCENT_SIDE:
            self._findings.hints.append(
                f"no coordinate exceeds 100 in images of at least {self._smallest_side} pixels: are they in percent, "
                "not pixels?"
            )
        explained = {cause: sum(map(agrees, self._samples)) for cause, agrees in _CAUSES.items()}
        likely = max(explained, key=explained.__getitem__)
        if explained[likely] > len(self._samples) / 2:
            share = f"{explained[likely]} of the first {len(self._samples)}"
            hint = f"likely cause: {likely} ({share} masks that disagree with their boxes would agree)"
            self._findings.hints.append(hint)


def covers_a_pixel(mask: Mask, record: ImageRecord) -> bool:
    """Whether a mask covers a pixel centre of its image; only polygons for which this is uncertain are rasterised."""
    if mask.extents is None:
        return False
    x0, y0, x1, y1 = mask.extents
    inside = x0 >= 0 and y0 >= 0 and x1 <= record.width and y1 <= record.height
    if not mask.polygons or (inside and sum(map(_area, mask.polygons)) > COVERING * max(x1 - x0, y1 - y0)):
        return True
    return bool(coco_mask.area(segmentation_to_rle(mask.segmentation, record.height, record.width)))


def _area(polygon: np.ndarray) -> float:
    """Area of a polygon by the shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1])) / 2


def _sides(box: Box) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _are_apart(first: Box, second: Box) -> bool:
    return any(max(first[axis], second[axis]) > min(first[axis + 2], second[axis + 2]) + SLACK for axis in (0, 1))


def _iou(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(width, 0) * max(height, 0)
    (w0, h0), (w1, h1) = _sides(first), _sides(second)
    union = w0 * h0 + w1 * h1 - common
    return common / union if union > 0 else 1.0


def _agree(extents: Box, box: Box) -> bool:
    return _iou(extents, box) >= _AGREEMENT


def _scaled(box: Box, record: ImageRecord, unit: float) -> Box:
    x0, y0, x1, y1 = box
    return x0 * record.width / unit, y0 * record.height / unit, x1 * record.width / unit, y1 * record.height / unit


def _swapped(box: Box) -> Box:
    return box[1], box[0], box[3], box[2]


def _row_major(sample: _Sample) -> bool:
    if not isinstance(sample.segmentation, dict):
        return False
    height, width = sample.record.height, sample.record.width
    pixels = coco_mask.decode(segmentation_to_rle(sample.segmentation, height, width))
    rows = pixels.ravel(order="F").reshape(height, width)
    x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(rows))).tolist()
    return _agree((x, y, x + w, y + h), sample.box)


def _as_corners(sample: _Sample) -> bool:
    x0, y0, x1, y1 = sample.bbox
    return x0 < x1 and y0 < y1 and _agree(sample.extents, (x0, y0, x1, y1))


# Corrections that would make masks and boxes agree; of equally good ones the first is reported.
_CAUSES: dict[str, Callable[[_Sample], bool]] = {
    "masks with x and y swapped": lambda s: _agree(_swapped(s.extents), s.box),
    "boxes as two corners [x0, y0, x1, y1]": _as_corners,
    "masks in fractions (0..1) of the image size": lambda s: _agree(_scaled(s.extents, s.record, 1), s.box),
    "masks in percent of the image size": lambda s: _agree(_scaled(s.extents, s.record, 100), s.box),
    "boxes in fractions (0..1) of the image size": lambda s: _agree(s.extents, _scaled(s.box, s.record, 1)),
    "boxes in percent of the image size": lambda s: _agree(s.extents, _scaled(s.box, s.record, 100)),
    "RLE in row-major order (COCO's is column-major)": _row_major,
}
