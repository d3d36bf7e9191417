"""Plain COCO annotations are recognised in bulk, by numpy: those that the reader's rules keep without a finding.

Nearly all annotations of a usual file are plain, and applying the rules one by one (`bcnet.data.reader`) takes most of
the time of reading it. The conditions here are sufficient, not necessary: what does not meet them is read by the rules.
So there is no second set of rules to keep equal, only the promise that the rules would find nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from bcnet.data.checks import COVERING, SLACK
from bcnet.data.coco_json import normal_id
from bcnet.data.records import ImageRecord, InstanceRecord

# Keys that the reader looks at beyond those below: an annotation with one of them is not plain.
_OTHER_KEYS = frozenset(
    (
        "amodal_bbox",
        "amodal_segmentation",
        "attributes",
        "bg_object_segmentation",
        "depth",
        "hidden_fraction",
        "i_segm",
        "ignore",
        "in_front",
        "inmodal_seg",
        "occlusion",
        "track_id",
        "unordered_with",
        "visible_mask",
    )
)


class PlainInstances(NamedTuple):
    """Instances of plain annotations, and what a file's checks gather of them.

    Attributes:
        instances: of each annotation; None where it is not plain.
        largest: their largest coordinate, 0 without any; else above 2.
        smallest_side: the smallest height or width of their images in pixels, infinite without any.
    """

    instances: list[InstanceRecord | None]
    largest: float
    smallest_side: float


@np.errstate(over="ignore", invalid="ignore")  # infinite and huge values are not plain
def plain_instances(
    annotations: Sequence[object], records: Sequence[ImageRecord], class_of: Mapping[int, int]
) -> PlainInstances:
    """The instances of those annotations that are plain.

    Plain is an object, no crowd, with a known category, a finite area, a box of positive size inside its image, and
    polygons of at least three points inside the image, whose extents agree with the box within a pixel and which
    certainly cover a pixel centre.

    Args:
        annotations: COCO annotations with valid ids.
        records: the image of each.
        class_of: the class 0..K-1 of each category id.
    """
    instances: list[InstanceRecord | None] = [None] * len(annotations)
    nothing = PlainInstances(instances, 0.0, np.inf)
    places = [place for place, annotation in enumerate(annotations) if _has_plain_form(annotation, class_of)]
    rows: list[dict] = [annotations[place] for place in places]  # pyright: ignore[reportAssignmentType]
    numbers = [number for row in rows for number in (*row["bbox"], row["area"])]
    if not rows or not {int, float}.issuperset(map(type, numbers)):
        return nothing
    try:
        masks = _Masks.of([row["segmentation"] for row in rows])
        values = np.array(numbers, np.float64).reshape(-1, 5)
    except (TypeError, OverflowError):  # not a number, or an integer beyond the range of floats
        return nothing

    sides = np.array([(records[place].width, records[place].height) for place in places])
    low, high = values[:, :2], values[:, :2] + values[:, 2:4]
    area = values[:, 4]
    # Every comparison with NaN is False.
    plain = (
        (np.abs(masks.low - low) <= SLACK).all(1)
        & (np.abs(masks.high - high) <= SLACK).all(1)
        & (np.minimum(masks.low, low) >= 0).all(1)
        & (np.maximum(masks.high, high) <= sides).all(1)
        & (values[:, 2:4] > 0).all(1)
        & ((area >= 0) & (area < np.inf))
        & (masks.area > COVERING * (masks.high - masks.low).max(1))
        & (masks.reach > 2)  # no polygon in 0..1, of fractions of the image or of bools
    )
    if not plain.any():
        return nothing
    for place, row, is_plain in zip(places, rows, plain.tolist(), strict=True):
        if is_plain:
            instances[place] = InstanceRecord(
                row["bbox"],
                class_of[row["category_id"]],
                segmentation=row["segmentation"],
                annotation_id=normal_id(row["id"]),
                area=float(row["area"]),
            )
    largest = np.maximum(masks.high, high)[plain].max()
    return PlainInstances(instances, float(largest), sides[plain].min().item())


class _Masks(NamedTuple):
    """Measures of N masks of polygons.

    low, high: their extents, float64 [N, 2] (x, y).
    area: sum of their polygons' areas, which may count pixels twice, float64 [N].
    reach: the smallest of their polygons' largest coordinates, float64 [N].
    """

    low: np.ndarray
    high: np.ndarray
    area: np.ndarray
    reach: np.ndarray

    @classmethod
    def of(cls, segmentations: Sequence[list[list[float]]]) -> _Masks:
        """Measures lists of polygons of at least three points each.

        Raises:
            TypeError: a coordinate is not a number.
            OverflowError: a coordinate is an integer beyond the range of floats.
        """
        polygons = list(chain.from_iterable(segmentations))
        points = np.frombuffer(array("d", chain.from_iterable(polygons))).reshape(-1, 2)
        first_point, lengths = _parts([len(polygon) // 2 for polygon in polygons])
        first_polygon, _ = _parts([len(segmentation) for segmentation in segmentations])
        low, high = np.minimum.reduceat(points, first_point), np.maximum.reduceat(points, first_point)
        return cls(
            np.minimum.reduceat(low, first_polygon),
            np.maximum.reduceat(high, first_polygon),
            np.add.reduceat(_polygon_areas(points, first_point, lengths), first_polygon),
            np.minimum.reduceat(high.max(1), first_polygon),
        )


def _parts(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where each of consecutive parts begins, and their lengths."""
    counts = np.array(lengths)
    return np.cumsum(counts) - counts, counts


def _has_plain_form(annotation: object, class_of: Mapping[int, int]) -> bool:
    if type(annotation) is not dict or not _OTHER_KEYS.isdisjoint(annotation):
        return False
    get = annotation.get
    segmentation, box, category = get("segmentation"), get("bbox"), get("category_id")
    if (
        type(segmentation) is not list
        or not segmentation
        or type(box) is not list
        or len(box) != 4
        or type(category) is not int
        or category not in class_of
        or get("iscrowd", 0) != 0
        or "area" not in annotation
    ):
        return False
    for polygon in segmentation:  # noqa: SIM110 (faster than all)
        if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
            return False
    return True


def _polygon_areas(points: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Areas of polygons, whose points lie one behind the other, by the shoelace formula: float64 [polygons]."""
    following = np.arange(1, len(points) + 1)
    following[first + lengths - 1] = first
    (x, y), (next_x, next_y) = points.T, points[following].T
    return np.abs(np.add.reduceat(x * next_y - next_x * y, first)) / 2
