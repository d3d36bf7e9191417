"""What is known of occlusion from masks and a partial depth order: occluder and amodal masks with unknown pixels.

The table of docs/composition.md, on RLE masks. A pixel of object i's region is known where the visible masks and the
depth order decide it; the rest is unknown, and losses leave it out.

Letters: G instances, N >= G masks: those of the instances, then those of regions that are no instances (crowds), H x W
image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.occlusion.rule import crop_rle
from bcnet.ops.rle import rle_difference, rle_intersection, rle_union

# Unknown pixels of an amodal mask are kept this far outside the object's box, in shares of its sides: a box that is
# shifted by more than a third of its side has an IoU below 1/2 with it, and is not matched to the object.
CONTEXT = 1 / 3


def known_occluders(
    frames: np.ndarray,
    visible: Sequence[dict],
    in_front: np.ndarray,
    unknown_order: np.ndarray,
    image_size: tuple[int, int],
) -> tuple[list[dict | None], list[dict | None]]:
    """What is known to lie in front of each instance, and where that is not known, inside the instance's frame.

    A visible pixel of the instance has nothing in front of it. A pixel of what is known to lie in front is one of the
    mask. A pixel of what may lie in front or behind is unknown. All others are not of the mask.

    Args:
        frames: float [G, 4], xywh; occluders are cropped to the pixels of these boxes (`crop_rle`).
        visible: the N visible masks.
        in_front: bool [G, N], True at [i, j] where j is known to lie in front of i.
        unknown_order: bool [G, N], True at [i, j] where the order of i and j is not known.
        image_size: (H, W).

    Returns:
        The occluder masks and their unknown pixels, G compressed RLEs each; None is an empty mask.
    """
    near = _overlapping(frames, visible)
    occluders, unknown = [], []
    for index, frame in enumerate(frames):
        crop = crop_rle(frame.tolist(), image_size)
        front = [visible[j] for j in np.flatnonzero(near[index] & in_front[index])]
        undecided = [visible[j] for j in np.flatnonzero(near[index] & unknown_order[index])]
        occluders.append(_part(front, crop, visible[index]))
        decided = visible[index] if occluders[-1] is None else rle_union([visible[index], occluders[-1]])
        unknown.append(_part(undecided, crop, decided))
    return occluders, unknown


def unknown_amodal(
    frames: np.ndarray, uncovered: Sequence[dict], may_hide: np.ndarray, image_size: tuple[int, int]
) -> list[dict | None]:
    """Where an instance may go on behind its neighbours, so that its amodal mask is unknown.

    The known part of an instance's amodal mask is what was visible of it before objects were pasted. It may go on
    behind neighbours that do not lie behind it: their pixels (before objects were pasted over them) are unknown.
    Background is not: what is hidden there by a pasted object is known not to be of the instance.

    Args:
        frames: float [G, 4], xywh boxes of the instances before objects were pasted.
        uncovered: the N masks that were visible before objects were pasted.
        may_hide: bool [G, N], True at [i, j] where j may hide a part of i.
        image_size: (H, W).

    Returns:
        list: G compressed RLEs, in the frame and `CONTEXT` around it; None is an empty mask.
    """
    wide = np.concatenate([frames[:, :2] - CONTEXT * frames[:, 2:], (1 + 2 * CONTEXT) * frames[:, 2:]], axis=1)
    near = _overlapping(wide, uncovered) & may_hide
    return [
        _part([uncovered[j] for j in np.flatnonzero(near[i])], crop_rle(frame.tolist(), image_size), uncovered[i])
        for i, frame in enumerate(wide)
    ]


def _part(masks: Sequence[dict], crop: dict, excluded: dict) -> dict | None:
    """The union of masks inside a crop and outside a mask; None if it is empty."""
    if not masks:
        return None
    part = rle_difference(rle_intersection(rle_union(masks), crop), excluded)
    return part if coco_mask.area(part) > 0 else None


def _overlapping(frames: np.ndarray, masks: Sequence[dict]) -> np.ndarray:
    """bool [G, N], True at [i, j] where the box of mask j overlaps frame i; i and j differ."""
    boxes = coco_mask.toBbox(list(masks)).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    first, last = np.floor(frames[:, :2]), np.ceil(frames[:, :2] + frames[:, 2:])
    near = ((low[None] < last[:, None]) & (high[None] > first[:, None])).all(axis=2)
    np.fill_diagonal(near, False)
    return near
