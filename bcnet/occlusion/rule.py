"""Occluder rule: derives the occluder mask of each instance from the masks of overlapping instances.

Letters: G instances, H x W image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask as coco_mask

from bcnet.ops.rle import RLE, box_rle

IOU_THRESHOLD = 0.05
MIN_PIXELS = 20
HALF_CONFIDENCE = 0.05  # hidden share of an object at which its hidden part gives a relation a confidence of one half


def occluder_rles(
    boxes: ArrayLike,
    rles: Sequence[RLE],
    iscrowd: ArrayLike,
    image_size: tuple[int, int],
    *,
    iou_threshold: float = IOU_THRESHOLD,
    min_pixels: int = MIN_PIXELS,
    in_front: ArrayLike | None = None,
) -> list[RLE | None]:
    """The occluder mask of every instance of an image.

    It is the union of the masks of all other instances whose box overlaps the instance's box with an IoU
    above `iou_threshold`, cropped to the pixels of the instance's box: columns int(x) .. int(x + w) - 1 and
    rows int(y) .. int(y + h) - 1, clipped to the image. This is the rule of the published code's
    `process_dataset.py`, without its wrap-around of negative coordinates and with support for RLE masks.
    A crowd region covers many objects at once: it is not an occluder, and has none because it is not trained on.

    Args:
        boxes: float [G, 4], COCO's xywh in absolute pixels of the original image.
        rles: the G visible masks, compressed RLEs of the image's size without empty runs
            (as returned by `segmentation_to_rle`).
        iscrowd: bool [G].
        image_size: (H, W).
        iou_threshold: threshold of `inclusive_box_iou`, which a neighbour must exceed.
        min_pixels: an occluder of at most this many pixels is dropped.
        in_front: bool [G, G], True at [i, j] if j lies in front of i; only such j count as neighbours. None: all
            neighbours count, as for COCO, whose annotations have no depth order.

    Returns:
        list: for each instance the compressed RLE of its occluder mask in the image, or None.

    Raises:
        ValueError: counts differ, a box is not finite or has a negative size, or an RLE has another size.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    crowd = np.asarray(iscrowd, dtype=bool).reshape(-1)
    count = len(boxes)
    if not len(rles) == len(crowd) == count:
        raise ValueError(
            f"boxes, rles and iscrowd must have the same length, got {count}, {len(rles)} and {len(crowd)} instances"
        )
    if count == 0:
        return []
    if not (np.isfinite(boxes).all() and boxes[:, 2:].min() >= 0):
        bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
        raise ValueError(f"box {int(bad.argmax())} must be finite x, y, w, h with w, h >= 0, got {boxes[bad][0]}")
    for index, rle in enumerate(rles):
        if tuple(rle["size"]) != tuple(image_size):
            raise ValueError(f"mask {index} has size {tuple(rle['size'])}, the image (H, W) has {tuple(image_size)}")

    counted = inclusive_box_iou(boxes) > iou_threshold
    np.fill_diagonal(counted, False)
    counted &= ~crowd & ~crowd[:, None]
    if in_front is not None:
        in_front = np.asarray(in_front, dtype=bool)
        if in_front.shape != (count, count):
            raise ValueError(f"in_front must be [{count}, {count}], got {in_front.shape}")
        counted &= in_front

    neighbours: dict[int, list[RLE]] = {}
    for index, other in zip(*(positions.tolist() for positions in np.nonzero(counted)), strict=True):
        neighbours.setdefault(index, []).append(rles[other])
    occluders: list[RLE | None] = [None] * count
    for index, masks in neighbours.items():
        union = coco_mask.merge(masks) if len(masks) > 1 else masks[0]
        occluder = coco_mask.merge([union, crop_rle(boxes[index].tolist(), image_size)], intersect=True)
        if coco_mask.area(occluder) > min_pixels:
            occluders[index] = occluder
    return occluders


def inclusive_box_iou(boxes: ArrayLike) -> np.ndarray:
    """IoU of all pairs of xywh boxes with inclusive corner pixels (one is added to every side): float64 [G, G].

    Operations and their order equal those of the published code's `bb_intersection_over_union`, so that a pair at the
    threshold is decided the same way.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low) + 1
    intersection = np.maximum(sides[..., 0], 0) * np.maximum(sides[..., 1], 0)
    whole = high - low + 1
    areas = whole[:, 0] * whole[:, 1]
    return intersection / (areas[:, None] + areas - intersection)


def crop_rle(box: Sequence[float], image_size: tuple[int, int]) -> RLE:
    """The pixels of an xywh box that an occluder is cropped to, as an RLE of an image (H, W).

    Coordinates are truncated towards zero like int(), and clipped to the image.
    """
    x, y, width, height = box
    return box_rle(int(x), int(y), int(x + width), int(y + height), image_size)
