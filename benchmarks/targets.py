"""Targets and losses of the bilayer head: all regions at once, against region by region.

Letters: N RoIs, G instances, H x W image, M mask side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from skimage.morphology import dilation, erosion
from torch import Tensor
from torchvision.ops import roi_align

from bcnet.bilayer import MaskLogits, MaskTargets, crop_layers, mask_losses, mask_targets
from bcnet.structures import InstanceMasks
from benchmarks.row import BenchmarkRow
from benchmarks.scene import CrowdedImage, crowded_image
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import interleaved

SIDE = 28  # M
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
# Windows move a box by their origin, which rounds: a sample at exactly 1/2 may fall on the other side.
MOST_DIFFERENT = 5e-3  # of the pixels of the crops


@dataclass
class Regions:
    """The RoIs of one image, and the masks that they are cropped from in two forms.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels.
        instances: int64 [N], the object that each shows.
        windows: of the G objects, as our mapper gives them.
        full: bool [2, G, H, W], the same masks in the full image, as detectron2's `BitMasks` has them.
    """

    boxes: Tensor
    instances: Tensor
    windows: InstanceMasks
    full: Tensor


def benchmark_targets(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Times targets and losses (forward, and backward to the logits) for the RoIs of two images.

    The peer of the first row, and of the second, which has the boundaries alone, makes boundaries as the published code
    does, by scikit-image's dilation and erosion of one mask after the other on the CPU, from our crops. The peer of the
    third crops as the published code does too: from a mask of the full image for every RoI. All else is ours. That all
    give the same targets is checked.

    Raises:
        RuntimeError: the ways do not agree.
    """
    count = 16 if settings.quick else 128
    generator = torch.Generator().manual_seed(settings.seed)
    regions = [
        _regions(
            crowded_image(settings.instances, settings.image_size, seed=settings.seed + index),
            count,
            generator,
            settings.device,
        )
        for index in (0, 1)
    ]
    shape = (2 * count, SIDE, SIDE)
    logits = MaskLogits(
        *(torch.randn(shape, generator=generator).to(settings.device).requires_grad_() for _ in MaskLogits._fields)
    )
    layers = crops_of_windows(regions)
    _check_agreement(layers, crops_of_full_images(regions))

    def work(crop: Callable[[list[Regions]], Tensor], make_targets: Callable[[Tensor], MaskTargets]) -> None:
        losses = mask_losses(logits, make_targets(crop(regions)))
        torch.autograd.grad(sum(losses.values()), logits)

    ways = {
        "ours": lambda: work(crops_of_windows, mask_targets),
        "peer": lambda: work(crops_of_windows, targets_by_region),
        "our boundaries": lambda: mask_targets(layers),
        "peer's boundaries": lambda: targets_by_region(layers),
        "published": lambda: work(crops_of_full_images, targets_by_region),
    }
    seconds = interleaved(ways, settings.repeats, clock=settings.clock)
    what, peer = f"{2 * count} RoIs of 2 images", "scikit-image boundaries per RoI"

    def row(name: str, work: str, peer: str, our_way: str, peer_way: str, required: float | None) -> BenchmarkRow:
        return BenchmarkRow(
            f"{work}, {what}", peer, seconds[our_way], seconds[peer_way], "batch", name=name, required=required
        )

    return [
        row("targets", "targets and losses", peer, "ours", "peer", 20.0),
        row("targets-boundaries", "of these, boundaries", peer, "our boundaries", "peer's boundaries", None),
        row(
            "targets-published",
            "targets and losses",
            f"{peer}, crops of full-image masks per RoI",
            "ours",
            "published",
            None,
        ),
    ]


def targets_by_region(layers: Tensor) -> MaskTargets:
    """The published way to what `mask_targets` gives: boundaries one after the other, on the CPU."""
    masks = layers.cpu().numpy()
    boundaries = np.stack([[dilation(mask, CROSS) != erosion(mask, CROSS) for mask in layer] for layer in masks])
    occludee_boundary, occluder_boundary = torch.from_numpy(boundaries).to(layers.device)
    return MaskTargets(layers[0], occludee_boundary, layers[1], occluder_boundary)


def crops_of_windows(regions: list[Regions]) -> Tensor:
    """Our way: bool [2, N, M, M], the RoIs of all images in order."""
    return torch.cat(
        [crop_layers(r.windows.bitmaps, r.windows.origins, r.boxes, r.instances, SIDE) for r in regions], dim=1
    )


def crops_of_full_images(regions: list[Regions]) -> Tensor:
    """What detectron2's `BitMasks` does with sampled proposals: a copy of the mask for every RoI, then RoIAlign."""
    crops = []
    for r in regions:
        rois = torch.cat([torch.arange(len(r.boxes), device=r.boxes.device)[:, None].float(), r.boxes], dim=1)
        layers = (
            roi_align(layer[r.instances][:, None].float(), rois, SIDE, 1.0, 0, aligned=True)[:, 0] for layer in r.full
        )
        crops.append(torch.stack([layer >= 0.5 for layer in layers]))
    return torch.cat(crops, dim=1)


def _check_agreement(layers: Tensor, published: Tensor) -> None:
    different = (layers != published).float().mean().item()
    if different > MOST_DIFFERENT:
        raise RuntimeError(f"crops of windows and of full images disagree in {different:.2%} of their pixels")
    for ours, theirs in zip(mask_targets(layers), targets_by_region(layers), strict=True):
        if not torch.equal(ours, theirs):
            raise RuntimeError("boundaries of all regions at once and region by region disagree")


def _regions(image: CrowdedImage, count: int, generator: torch.Generator, device: str) -> Regions:
    """RoIs near the boxes of an image's objects."""
    targets = image.targets().to(device)
    instances = torch.arange(count) % len(targets)
    boxes = image.boxes[instances]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    boxes = boxes + 0.1 * sides * (torch.rand(boxes.shape, generator=generator) - 0.5)
    return Regions(boxes.to(device), instances.to(device), targets.masks, image.masks.bool().to(device))
