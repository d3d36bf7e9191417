"""Occlusion relations between the detections of an image: pairwise occluder confidence from both mask layers.

The occluder layer of a detection predicts which pixels of its box belong to its occluders. Where these are the
pixels of another detection's mask, that detection is an occluder.

Letters: D detections, P pairs of them, M mask side, S samples a side.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bcnet.occlusion.rule import MIN_PIXELS
from bcnet.structures import Detections

SAMPLES = 28  # S; as fine as the usual mask head's maps
PAIRS_AT_ONCE = 512


def occluder_confidence(detections: Detections, min_pixels: int = MIN_PIXELS) -> Tensor:
    """Pairwise confidence that one detection occludes another.

    The entry [i, j], the confidence that j covers i, is the mean occluder probability of i over the visible pixels of j
    inside the box of i. A pixel is weighted as a visible pixel of j by the mask probability of j times one minus the
    occluder probability of j; the second factor matters for amodal masks, which extend below other objects. Where these
    weights sum to fewer than `min_pixels`, the limit of the occluder rule, the confidence is zero.

    The maps are sampled bilinearly at S x S points spread evenly over the intersection of both boxes, so that the cost
    depends on the number of overlapping pairs and not on their size in the image.

    Args:
        detections: with ``occludee_mask`` and ``occluder_mask``, on any device.
        min_pixels: in the pixels of the detections' image.

    Returns:
        Tensor: float32 [D, D], 0..1, zero on the diagonal and for boxes that do not overlap.

    Raises:
        ValueError: one of the two maps is absent.
    """
    maps = []
    for name in ("occludee_mask", "occluder_mask"):
        if getattr(detections, name) is None:
            raise ValueError(
                f"relations need the {name} of the detections, which carry: {', '.join(detections.maps) or 'no maps'}"
            )
        maps.append(getattr(detections, name).float())
    maps = torch.stack(maps, dim=1)  # [D, 2, M, M]
    boxes = detections.boxes.float()
    height, width = detections.image_size
    limits = boxes.new_tensor([width, height])
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2]).clamp(min=0)
    high = torch.minimum(torch.minimum(boxes[:, None, 2:], boxes[:, 2:]), limits)
    overlapping = ((high - low).amin(dim=2) > 0).triu(diagonal=1)
    confidence = boxes.new_zeros(len(boxes), len(boxes))
    for pairs in overlapping.nonzero().split(PAIRS_AT_ONCE):
        first, second = pairs.unbind(dim=1)
        window = torch.cat([low[first, second], high[first, second]], dim=1)
        sampled = [_sampled(maps[side], boxes[side], window) for side in (first, second)]
        area = (window[:, 2:] - window[:, :2]).prod(dim=1)
        for occludee, occluder, occludee_maps, occluder_maps in (
            (first, second, *sampled),
            (second, first, *reversed(sampled)),
        ):
            visible = occluder_maps[:, 0] * (1 - occluder_maps[:, 1])
            share = visible.mean(dim=(1, 2))
            covering = (visible * occludee_maps[:, 1]).mean(dim=(1, 2)) / share.clamp(min=1e-6)
            confidence[occludee, occluder] = torch.where(share * area >= min_pixels, covering, 0.0)
    return confidence


def _sampled(maps: Tensor, boxes: Tensor, windows: Tensor) -> Tensor:
    """Samples RoI-frame maps at S x S points of a window inside the boxes: [P, 2, M, M] to [P, 2, S, S].

    Unlike in pasting, a map does not fade across its border: every point lies inside.
    """
    steps = (torch.arange(SAMPLES, device=maps.device) + 0.5) / SAMPLES
    coordinates = []
    for axis in (0, 1):
        start, end = windows[:, axis, None], windows[:, axis + 2, None]
        box_start, box_end = boxes[:, axis, None], boxes[:, axis + 2, None]
        coordinates.append((start + steps * (end - start) - box_start) / (box_end - box_start) * 2 - 1)
    xs, ys = coordinates  # [P, S] each
    grid = torch.stack([xs[:, None].expand(-1, SAMPLES, -1), ys[:, :, None].expand(-1, -1, SAMPLES)], dim=3)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def with_relations(detections: Detections) -> Detections:
    """The detections with `Detections.occluded_by` filled; unchanged where the masks of a layer are absent."""
    if detections.occludee_mask is None or detections.occluder_mask is None:
        return detections
    return replace(detections, occluded_by=occluder_confidence(detections))
