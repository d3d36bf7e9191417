"""Occlusion relations between the detections of an image: pairwise confidences from their mask maps.

Two estimates, each a matrix of confidences: from the occluder layer (`occluder_confidence`), which predicts the pixels
of a detection's box that belong to its occluders; and from visible and amodal masks (`hidden_part_confidence`), by how
much of a detection other ones hide. `with_relations` uses the mean of both, where there are amodal masks.

Letters: D detections, P pairs of them, M mask side, S samples per side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bcnet.occlusion.rule import HALF_CONFIDENCE, MIN_PIXELS
from bcnet.structures import Detections

SAMPLES = 28  # S; the usual resolution of a mask head's maps
PAIRS_AT_ONCE = 512


def occluder_confidence(detections: Detections, min_pixels: int = MIN_PIXELS) -> Tensor:
    """Pairwise confidence that one detection occludes another, from the occluder layer.

    The entry [i, j], the confidence that j covers i, is the mean occluder probability of i over the visible pixels of j
    inside the RoI of i (`Detections.map_boxes`). A pixel is weighted as a visible pixel of j by the mask probability of
    j times one minus the occluder probability of j; the second factor matters for amodal masks, which extend behind
    other objects. Where these weights sum to fewer than `min_pixels`, the limit of the occluder rule, the confidence is
    zero.

    The maps are sampled bilinearly at S x S points spread evenly over the intersection of both boxes, so that the cost
    depends on the number of overlapping pairs and not on their size in the image.

    Args:
        detections: with ``occludee_mask`` and ``occluder_mask``, on any device.
        min_pixels: in pixels of the detections' image.

    Returns:
        Tensor: float32 [D, D], 0..1, zero on the diagonal and for boxes that do not overlap.

    Raises:
        ValueError: one of the two maps is absent.
    """
    maps = []
    for name in ("occludee_mask", "occluder_mask"):
        if getattr(detections, name) is None:
            raise ValueError(
                f"relations need the {name} of the detections, which have: {', '.join(detections.maps) or 'no maps'}"
            )
        maps.append(getattr(detections, name).float())
    maps = torch.stack(maps, dim=1)  # [D, 2, M, M]

    def over_the_occluders_pixels(below: Tensor, above: Tensor, area: Tensor) -> Tensor:
        weights = above[:, 0] * (1 - above[:, 1])
        share = weights.mean(dim=(1, 2))
        mean = (weights * below[:, 1]).mean(dim=(1, 2)) / share.clamp(min=1e-6)
        return torch.where(share * area >= min_pixels, mean, 0.0)

    return _pairwise(maps, detections.map_boxes, detections.image_size, over_the_occluders_pixels)


def hidden_part_confidence(
    occludee_mask: Tensor, occludee_amodal: Tensor, boxes: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """The confidence that one detection covers another, from visible and amodal masks.

    j covers i where the hidden part of i coincides with the visible part of j. The entry [i, j] is ``s / (s + 0.05)``
    (`HALF_CONFIDENCE`), where s is the share of i that j hides: over the intersection of both boxes, the amodal minus
    the visible probability of i times the visible probability of j, relative to the amodal probabilities of i. So a
    large hidden part counts more than a few pixels at a contour. Sampled as in `occluder_confidence`.

    Args:
        occludee_mask: float [D, M, M], 0..1, the visible mask of each detection in its box.
        occludee_amodal: float [D, M, M], 0..1, the whole object in the same box.
        boxes: float [D, 4], x0, y0, x1, y1 in pixels of the image.
        image_size: (height, width).

    Returns:
        Tensor: float32 [D, D], 0..1, zero on the diagonal and for boxes that do not overlap.

    Raises:
        ValueError: the maps are of different shapes.
    """
    if occludee_mask.shape != occludee_amodal.shape:
        shapes = f"{tuple(occludee_mask.shape)} and {tuple(occludee_amodal.shape)}"
        raise ValueError(f"occludee_mask and occludee_amodal must have the same shape, got {shapes}")

    def hidden_pixels(below: Tensor, above: Tensor, area: Tensor) -> Tensor:
        return ((below[:, 1] - below[:, 0]).clamp(min=0) * above[:, 0]).mean(dim=(1, 2)) * area

    maps = torch.stack([occludee_mask.float(), occludee_amodal.float()], dim=1)
    hidden = _pairwise(maps, boxes, image_size, hidden_pixels)
    whole = maps[:, 1].mean(dim=(1, 2)) * (boxes[:, 2:] - boxes[:, :2]).float().prod(dim=1)
    return hidden / (hidden + HALF_CONFIDENCE * whole[:, None]).clamp(min=1e-6)


def _pairwise(
    maps: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    measure: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """A measure of how one detection covers another, over the intersection of both boxes: float32 [D, D].

    Args:
        maps: float32 [D, 2, M, M], two maps of each detection in its box.
        boxes, image_size: as in `hidden_part_confidence`.
        measure: function of the samples of i and of j, [P, 2, S, S] each, and of the intersection's area in pixels,
            [P], that returns the entries [i, j], [P].
    """
    boxes = boxes.float()
    height, width = image_size
    limits = boxes.new_tensor([width, height])
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2]).clamp(min=0)
    high = torch.minimum(torch.minimum(boxes[:, None, 2:], boxes[:, 2:]), limits)
    overlapping = ((high - low).amin(dim=2) > 0).triu(diagonal=1)
    measured = boxes.new_zeros(len(boxes), len(boxes))
    for pairs in overlapping.nonzero().split(PAIRS_AT_ONCE):
        first, second = pairs.unbind(dim=1)
        window = torch.cat([low[first, second], high[first, second]], dim=1)
        sampled = [_sampled(maps[side], boxes[side], window) for side in (first, second)]
        area = (window[:, 2:] - window[:, :2]).prod(dim=1)
        for occludee, occluder, below, above in ((first, second, *sampled), (second, first, *reversed(sampled))):
            measured[occludee, occluder] = measure(below, above, area)
    return measured


def _sampled(maps: Tensor, boxes: Tensor, windows: Tensor) -> Tensor:
    """Samples RoI-frame maps at S x S points of a window inside the boxes: [P, 2, M, M] to [P, 2, S, S].

    Unlike in mask pasting, no zero padding is needed: every point lies inside the map.
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


def relation_confidences(detections: Detections) -> dict[str, Tensor]:
    """The pairwise confidences of every estimate, by name.

    Args:
        detections: with ``occludee_mask`` and ``occluder_mask``.

    Returns:
        "occluder" (`occluder_confidence`); with a map of amodal masks beside the visible ones also "hidden_part"
        (`hidden_part_confidence`) and "mean", of both. float32 [D, D] each.

    Raises:
        ValueError: one of the two maps is absent.
    """
    confidences = {"occluder": occluder_confidence(detections)}
    visible, amodal = detections.occludee_mask, detections.amodal_mask
    if visible is not None and amodal is not None:
        hidden = hidden_part_confidence(visible, amodal, detections.map_boxes, detections.image_size)
        confidences["hidden_part"] = hidden
        confidences["mean"] = (confidences["occluder"] + hidden) / 2
    return confidences


def with_relations(detections: Detections) -> Detections:
    """The detections with `Detections.occluded_by` filled in; unchanged if the masks of a layer are absent.

    With amodal masks it is the mean of both estimates, otherwise the occluder layer's: see scores/order_study.md.
    """
    if detections.occludee_mask is None or detections.occluder_mask is None:
        return detections
    confidences = relation_confidences(detections)
    return replace(detections, occluded_by=confidences.get("mean", confidences["occluder"]))
