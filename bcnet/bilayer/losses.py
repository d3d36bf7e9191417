"""Mask losses of a mask head: weighted per-map BCE, with balanced sampling of RoIs for the occluder.

Letters: N RoIs, M mask side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bcnet.bilayer.targets import MapTarget
from bcnet.distributed import loss_normalizer
from bcnet.maps import MapSpec


def mask_losses(
    maps: Sequence[MapSpec],
    logits: Mapping[str, Tensor],
    targets: Mapping[str, MapTarget],
    layers: Mapping[str, MapTarget],
    *,
    negative_ratio: float = 1.0,
) -> dict[str, Tensor]:
    """Weighted mean loss of every map, by loss name (paper, equations 4-6, for the four published maps).

    A loss is a mean over RoIs of the mean over each RoI's pixels: over all RoIs, or for maps that are balanced by a
    layer over the RoIs of `balanced_rois`. Pixels whose target is unknown are excluded, and so are RoIs without a known
    pixel. Counts of RoIs are averaged over processes. Without RoIs a loss is zero and still differentiable. Causes no
    host-device synchronisation.

    Args:
        maps: the head's records, with the weights.
        logits: [N, M, M] by map name, of the RoI's class.
        targets: by map name, see `map_targets`.
        layers: crops of the instance masks by layer; those that balance a map are read.
        negative_ratio: see `balanced_rois`.

    Returns:
        dict: scalars by the records' `loss_name`.
    """
    balanced = {
        layer: balanced_rois(layers[layer].values, negative_ratio)
        for layer in dict.fromkeys(spec.balanced_by for spec in maps if spec.balanced_by is not None)
    }
    selected, per_roi = [], []
    for spec in maps:
        target = targets[spec.name]
        per_pixel = _per_pixel_loss(spec, logits[spec.name].float(), target.values.to(torch.float32))
        rois = torch.ones_like(per_pixel[:, 0, 0]) if spec.balanced_by is None else balanced[spec.balanced_by]
        if target.known is None:
            per_roi.append(per_pixel.mean(dim=(1, 2)))
        else:
            known = target.known.to(per_pixel.dtype)
            pixels = known.sum(dim=(1, 2))
            per_roi.append((per_pixel * known).sum(dim=(1, 2)) / pixels.clamp(min=1))
            rois = rois * (pixels > 0)
        selected.append(rois.to(per_pixel.dtype).detach())
    counts = loss_normalizer(torch.stack([rois.sum() for rois in selected])).clamp(min=1)
    return {
        spec.loss_name: spec.weight * (losses * rois).sum() / count
        for spec, losses, rois, count in zip(maps, per_roi, selected, counts, strict=True)
    }


def _per_pixel_loss(spec: MapSpec, logits: Tensor, target: Tensor) -> Tensor:
    if spec.loss is not None:
        return spec.loss(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def balanced_rois(masks: Tensor, negative_ratio: float = 1.0) -> Tensor:
    """Balanced sample of RoIs: those with a non-empty mask, and as many negatives, drawn without replacement.

    The published code trains the occluder layer on these. If there are fewer negatives than requested, all are used.

    Args:
        masks: bool [N, M, M], for example the occluder targets.
        negative_ratio: negatives per RoI with a mask; a negative value selects every RoI.

    Returns:
        Tensor: bool [N].
    """
    positive = masks.flatten(1).any(dim=1)
    if negative_ratio < 0:
        return torch.ones_like(positive)
    # Positive RoIs sort first, negatives follow in random order; counts stay on the device.
    order = torch.rand(len(positive), device=positive.device) - positive.to(torch.float32) * 2
    place = order.argsort().argsort()
    return place < positive.sum() * (1 + negative_ratio)
