"""Targets and losses of the bilayer head: all regions at once, against boundaries region by region.

Letters: N RoIs, M mask side.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from skimage.morphology import dilation, erosion
from torch import Tensor

from bcnet.benchmark.row import BenchmarkRow
from bcnet.benchmark.scene import crowded_image
from bcnet.benchmark.settings import BenchmarkSettings
from bcnet.benchmark.timing import interleaved
from bcnet.bilayer import MaskLogits, MaskTargets, crop_layers, mask_losses, mask_targets
from bcnet.structures import Targets

SIDE = 28  # M
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)


def benchmark_targets(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Times cropping, boundaries and losses (forward, and backward to the logits) for the RoIs of two images.

    The peer is the published code's way to the boundaries, scikit-image's dilation and erosion of one mask after the
    other on the CPU; all else is ours on both sides. Both give the same targets, which is checked.

    Raises:
        RuntimeError: the two ways do not agree.
    """
    count = 16 if settings.quick else 128
    images = [
        crowded_image(settings.instances, settings.image_size, seed=settings.seed + index).targets() for index in (0, 1)
    ]
    generator = torch.Generator().manual_seed(settings.seed)
    regions = [(image.to(settings.device), *_regions(image, count, generator, settings.device)) for image in images]
    shape = (2 * count, SIDE, SIDE)
    logits = MaskLogits(
        *(torch.randn(shape, generator=generator).to(settings.device).requires_grad_() for _ in MaskLogits._fields)
    )
    for ours, theirs in zip(mask_targets(_layers(regions)), targets_by_region(_layers(regions)), strict=True):
        if not torch.equal(ours, theirs):
            raise RuntimeError("boundaries of all regions at once and region by region disagree")

    def work(make_targets: Callable[[Tensor], MaskTargets]) -> None:
        losses = mask_losses(logits, make_targets(_layers(regions)))
        torch.autograd.grad(sum(losses.values()), logits)

    layers = _layers(regions)
    ways = {
        "ours": lambda: work(mask_targets),
        "peer": lambda: work(targets_by_region),
        "our boundaries": lambda: mask_targets(layers),
        "peer's boundaries": lambda: targets_by_region(layers),
    }
    seconds = interleaved(ways, settings.repeats, clock=settings.clock)
    what, peer = f"{2 * count} RoIs of 2 images", "scikit-image boundaries per RoI"
    return [
        BenchmarkRow(
            f"targets and losses, {what}",
            peer,
            seconds["ours"],
            seconds["peer"],
            "batch",
            name="targets",
            required=20.0,
        ),
        BenchmarkRow(
            f"of these, boundaries, {what}",
            peer,
            seconds["our boundaries"],
            seconds["peer's boundaries"],
            "batch",
            name="targets-boundaries",
        ),
    ]


def targets_by_region(layers: Tensor) -> MaskTargets:
    """The published way to what `mask_targets` gives: boundaries one after the other, on the CPU."""
    masks = layers.cpu().numpy()
    boundaries = np.stack([[dilation(mask, CROSS) != erosion(mask, CROSS) for mask in layer] for layer in masks])
    occludee_boundary, occluder_boundary = torch.from_numpy(boundaries).to(layers.device)
    return MaskTargets(layers[0], occludee_boundary, layers[1], occluder_boundary)


def _regions(targets: Targets, count: int, generator: torch.Generator, device: str) -> tuple[Tensor, Tensor]:
    """Boxes [count, 4] near those of an image's objects, and the objects that they show [count]."""
    instances = torch.arange(count) % len(targets)
    boxes = targets.boxes[instances]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    boxes = boxes + 0.1 * sides * (torch.rand(boxes.shape, generator=generator) - 0.5)
    return boxes.to(device), instances.to(device)


def _layers(regions: list[tuple[Targets, Tensor, Tensor]]) -> Tensor:
    return torch.cat(
        [
            crop_layers(targets.masks.bitmaps, targets.masks.origins, boxes, instances, SIDE)
            for targets, boxes, instances in regions
        ],
        dim=1,
    )
