"""Losses of a mask head.

Letters: N RoIs, M mask side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bcnet.bilayer.head import MaskLogits
from bcnet.bilayer.targets import MaskTargets
from bcnet.distributed import mean_over_processes


class MaskLossWeights(NamedTuple):
    """Weight of each binary cross-entropy. The published code writes a boundary as 1/2 of twice the BCE: 1."""

    occludee_mask: float = 1.0
    occludee_boundary: float = 1.0
    occluder_mask: float = 0.25
    occluder_boundary: float = 1.0


DEFAULT_WEIGHTS = MaskLossWeights()
LOSS_NAMES = MaskLogits(
    occludee_mask="loss_mask",
    occludee_boundary="loss_mask_boundary",
    occluder_mask="loss_occluder_mask",
    occluder_boundary="loss_occluder_boundary",
)


def mask_losses(
    logits: MaskLogits,
    targets: MaskTargets,
    *,
    weights: MaskLossWeights = DEFAULT_WEIGHTS,
    occluder_negative_ratio: float = 1.0,
) -> dict[str, Tensor]:
    """Mean binary cross-entropy of every map that the head has, weighted, by name (paper, equations 4-6).

    The occludee's losses are means over all RoIs. The occluder's are means over the RoIs that
    `occluder_rois` chooses. Counts of RoIs are averaged over processes. Without RoIs, or without chosen
    ones, a loss is zero and still differentiable. Nothing here waits for the device.

    Args:
        logits: [N, M, M] each, of the RoI's class.
        targets: bool [N, M, M] each.
        weights: of the four losses.
        occluder_negative_ratio: see `occluder_rois`.

    Returns:
        dict: "loss_mask", and where the head has the map "loss_mask_boundary", "loss_occluder_mask" and
        "loss_occluder_boundary".
    """
    all_rois = torch.ones(len(logits.occludee_mask), device=logits.occludee_mask.device)
    chosen = occluder_rois(targets.occluder_mask, occluder_negative_ratio).to(all_rois.dtype)
    counts = mean_over_processes(torch.stack([all_rois.sum(), chosen.sum()])).clamp(min=1)

    losses = {}
    for field, name in zip(MaskLogits._fields, LOSS_NAMES, strict=True):
        predicted = getattr(logits, field)
        if predicted is None:
            continue
        rois, count = (chosen, counts[1]) if field.startswith("occluder") else (all_rois, counts[0])
        target = getattr(targets, field).to(torch.float32)
        per_pixel = F.binary_cross_entropy_with_logits(predicted.float(), target, reduction="none")
        losses[name] = getattr(weights, field) * (per_pixel.mean(dim=(1, 2)) * rois).sum() / count
    return losses


def occluder_rois(occluder_mask: Tensor, negative_ratio: float = 1.0) -> Tensor:
    """The RoIs that train the occluder layer: those with an occluder, and as many others, drawn at random.

    Others are drawn without replacement; where there are fewer than asked for, all of them are taken.

    Args:
        occluder_mask: bool [N, M, M], the occluder targets.
        negative_ratio: others per RoI with an occluder; negative takes every RoI.

    Returns:
        Tensor: bool [N].
    """
    occluded = occluder_mask.flatten(1).any(dim=1)
    if negative_ratio < 0:
        return torch.ones_like(occluded)
    # Occluded RoIs sort first, the others follow in random order; no count leaves the device.
    order = torch.rand(len(occluded), device=occluded.device) - occluded.to(torch.float32) * 2
    place = order.argsort().argsort()
    return place < occluded.sum() * (1 + negative_ratio)
