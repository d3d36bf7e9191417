"""Who hides whom among the detections of an image, read off the two layers of each.

The occluder layer of a detection says which pixels of its box belong to what lies on top of it. Where these are the
pixels of another detection's mask, that one is the occluder.

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
    """How sure the layers are that one detection lies on top of another.

    At [i, j] it is the mean probability that the occluder layer of i gives to the visible pixels of j inside the
    RoI of i (`Detections.map_boxes`: its box, unless the mask branch scales it). A pixel counts as a visible one of
    j by the probability of j's mask times that of j's own occluder layer not claiming it; the second factor matters
    for amodal masks, which reach below other objects. Where these weights sum to fewer than `min_pixels`, the
    occluder rule's limit, the confidence is zero.

    The pixels are sampled, S x S of them evenly over the common part of both boxes and bilinearly in the maps, so
    that the work goes by the number of overlapping pairs and not by their size in the image.

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
    boxes = detections.map_boxes.float()
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
        for occludee, occluder, below, above in ((first, second, *sampled), (second, first, *reversed(sampled))):
            visible = above[:, 0] * (1 - above[:, 1])
            share = visible.mean(dim=(1, 2))
            on_top = (visible * below[:, 1]).mean(dim=(1, 2)) / share.clamp(min=1e-6)
            confidence[occludee, occluder] = torch.where(share * area >= min_pixels, on_top, 0.0)
    return confidence


def _sampled(maps: Tensor, boxes: Tensor, windows: Tensor) -> Tensor:
    """Maps of the box frame at S x S places of a window inside the boxes: [P, 2, M, M] to [P, 2, S, S].

    Unlike in pasting, a map does not fade across its rim: every place lies inside.
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
    """The detections with `Detections.occluded_by` filled; as they are where a layer's masks are absent."""
    if detections.occludee_mask is None or detections.occluder_mask is None:
        return detections
    return replace(detections, occluded_by=occluder_confidence(detections))
