"""Occluder and amodal targets from masks and a partial depth order, with unknown pixels marked.

Implements the table of docs/composition.md on RLE masks. A pixel of object i's region is known if the visible masks and
the depth order determine it; the rest is unknown, and losses ignore it.

Letters: G instances, N >= G masks: those of the instances, followed by those of regions that are not instances
(crowds), H x W image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.occlusion.rule import crop_rle
from bcnet.ops.rle import RLE, rle_difference, rle_intersection, rle_union

# Margin around the object's box, as a fraction of its sides, in which unknown pixels of an amodal mask are kept: a box
# shifted by more than a third of its side has an IoU below 1/2 with it, and is not matched to the object.
CONTEXT = 1 / 3


def known_occluders(
    frames: np.ndarray,
    visible: Sequence[RLE],
    in_front: np.ndarray,
    unknown_order: np.ndarray,
    image_size: tuple[int, int],
) -> tuple[list[RLE | None], list[RLE | None]]:
    """The known occluder of each instance inside its frame, and the pixels where it is unknown.

    A visible pixel of the instance has nothing in front of it. A pixel of a mask known to lie in front belongs to the
    occluder mask. A pixel of a mask of unknown order is unknown. All other pixels do not belong to the occluder mask.

    Args:
        frames: float [G, 4], xywh; occluders are cropped to the pixels of these boxes (`crop_rle`).
        visible: the N visible masks.
        in_front: bool [G, N], True at [i, j] if j is known to lie in front of i.
        unknown_order: bool [G, N], True at [i, j] if the order of i and j is unknown.
        image_size: (H, W).

    Returns:
        The occluder masks and their unknown pixels, G compressed RLEs each; None is an empty mask.
    """
    near = _overlapping(frames, visible)
    occluders: list[RLE | None] = []
    unknown: list[RLE | None] = []
    for index, frame in enumerate(frames):
        crop = crop_rle(frame.tolist(), image_size)
        front = [visible[j] for j in np.flatnonzero(near[index] & in_front[index]).tolist()]
        undecided = [visible[j] for j in np.flatnonzero(near[index] & unknown_order[index]).tolist()]
        occluder = _part(front, crop, visible[index])
        occluders.append(occluder)
        decided = visible[index] if occluder is None else rle_union([visible[index], occluder])
        unknown.append(_part(undecided, crop, decided))
    return occluders, unknown


def unknown_amodal(
    frames: np.ndarray, uncovered: Sequence[RLE], may_hide: np.ndarray, image_size: tuple[int, int]
) -> list[RLE | None]:
    """Pixels where an instance may extend behind its neighbours, so that its amodal mask is unknown.

    The known part of an instance's amodal mask is its visible mask before objects were pasted. It may extend behind
    neighbours that do not lie behind it: their pixels (before objects were pasted over them) are unknown. Background
    pixels are known: below a pasted object they do not belong to the instance.

    Args:
        frames: float [G, 4], xywh boxes of the instances before objects were pasted.
        uncovered: the N visible masks before objects were pasted.
        may_hide: bool [G, N], True at [i, j] if j may hide a part of i.
        image_size: (H, W).

    Returns:
        list: G compressed RLEs, in the frame extended by `CONTEXT`; None is an empty mask.
    """
    wide = np.concatenate([frames[:, :2] - CONTEXT * frames[:, 2:], (1 + 2 * CONTEXT) * frames[:, 2:]], axis=1)
    near = _overlapping(wide, uncovered) & may_hide
    return [
        _part(
            [uncovered[j] for j in np.flatnonzero(near[i]).tolist()], crop_rle(frame.tolist(), image_size), uncovered[i]
        )
        for i, frame in enumerate(wide)
    ]


def _part(masks: Sequence[RLE], crop: RLE, excluded: RLE) -> RLE | None:
    """The union of masks inside a crop and outside a mask; None if it is empty."""
    if not masks:
        return None
    part = rle_difference(rle_intersection(rle_union(masks), crop), excluded)
    return part if coco_mask.area(part) > 0 else None


def _overlapping(frames: np.ndarray, masks: Sequence[RLE]) -> np.ndarray:
    """bool [G, N], True at [i, j] if the box of mask j overlaps frame i; False on the diagonal."""
    boxes = np.array([coco_mask.toBbox(mask) for mask in masks], dtype=np.float64).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    first, last = np.floor(frames[:, :2]), np.ceil(frames[:, :2] + frames[:, 2:])
    near = np.all((low[None] < last[:, None]) & (high[None] > first[:, None]), axis=2)
    np.fill_diagonal(near, False)
    return near
