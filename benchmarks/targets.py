"""Benchmark of the bilayer head's targets and losses: batched over RoIs versus one RoI at a time.

Letters: N RoIs, G instances, H x W image, M mask side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from skimage.morphology import dilation, erosion
from torch import Tensor
from torchvision.ops import roi_align

from bcnet.bilayer import MapTarget, crop_layers, join_crops, map_targets, mask_losses
from bcnet.maps import OCCLUDEE, OCCLUDER, PUBLISHED_MAPS
from bcnet.structures import InstanceMasks
from benchmarks.row import BenchmarkRow
from benchmarks.scene import CrowdedImage, crowded_image
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import interleaved

SIDE = 28  # M
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
# Subtracting a window's origin from a box rounds: a sample at exactly 1/2 may be decided differently.
MAX_DIFFERENT = 5e-3  # fraction of the pixels of the crops


@dataclass
class Regions:
    """The RoIs of one image, and the masks that they are cropped from, in two representations.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels.
        instances: int64 [N], the object of each RoI.
        windows: masks of the G objects, in the form of our mapper.
        full: bool [2, G, H, W], the same masks in the full image, as in detectron2's `BitMasks`.
    """

    boxes: Tensor
    instances: Tensor
    windows: InstanceMasks
    full: Tensor


Layers = Mapping[str, MapTarget]


def benchmark_targets(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Times targets and losses (forward, and backward to the logits) for the RoIs of two images.

    The peer of the first row (targets and losses) and of the second (only boundaries) computes boundaries like the
    published code, by scikit-image's dilation and erosion on the CPU, one mask at a time, from our crops. The peer of
    the third row also crops like the published code: from a mask of the full image for every RoI. Everything else is
    the same. It is checked that all variants give the same targets.

    Raises:
        RuntimeError: the results of the implementations differ.
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
    logits = {
        spec.name: torch.randn(shape, generator=generator).to(settings.device).requires_grad_()
        for spec in PUBLISHED_MAPS
    }
    layers = crops_of_windows(regions)
    _check_agreement(layers, crops_of_full_images(regions))

    def work(crop: Callable[[list[Regions]], Layers], make_targets: Callable[[Layers], Layers]) -> None:
        layers = crop(regions)
        losses = mask_losses(PUBLISHED_MAPS, logits, make_targets(layers), layers)
        torch.autograd.grad(functools.reduce(torch.add, losses.values()), list(logits.values()))

    variants = {
        "ours": lambda: work(crops_of_windows, targets_at_once),
        "peer": lambda: work(crops_of_windows, targets_by_region),
        "our boundaries": lambda: targets_at_once(layers),
        "peer's boundaries": lambda: targets_by_region(layers),
        "published": lambda: work(crops_of_full_images, targets_by_region),
    }
    seconds = interleaved(variants, settings.repeats, clock=settings.clock)
    what, peer = f"{2 * count} RoIs of 2 images", "scikit-image boundaries per RoI"

    def row(name: str, work: str, peer: str, our_name: str, peer_name: str, required: float | None) -> BenchmarkRow:
        return BenchmarkRow(
            f"{work}, {what}", peer, seconds[our_name], seconds[peer_name], "batch", name=name, required=required
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


def targets_at_once(layers: Layers) -> Layers:
    """Our targets: boundaries of all RoIs in one batch, on the device."""
    return map_targets(PUBLISHED_MAPS, layers)


def targets_by_region(layers: Layers) -> Layers:
    """The published implementation of the same targets: boundaries one RoI at a time, on the CPU."""
    targets = {}
    for name, (masks, _) in layers.items():
        array = masks.cpu().numpy()
        boundaries = np.stack([dilation(mask, CROSS) != erosion(mask, CROSS) for mask in array])
        targets[f"{name}_mask"] = MapTarget(masks)
        targets[f"{name}_boundary"] = MapTarget(torch.from_numpy(boundaries).to(masks.device))
    return targets


def crops_of_windows(regions: list[Regions]) -> Layers:
    """Our crops: bool [N, M, M] by layer, RoIs of all images in order."""
    return join_crops([crop_layers(r.windows, r.boxes, r.instances, SIDE) for r in regions])


def crops_of_full_images(regions: list[Regions]) -> Layers:
    """Crops like detectron2's `BitMasks` with sampled proposals: a copy of the mask for every RoI, then RoIAlign."""
    crops = []
    for r in regions:
        rois = torch.cat([torch.arange(len(r.boxes), device=r.boxes.device)[:, None].float(), r.boxes], dim=1)
        aligned = [
            roi_align(layer[r.instances][:, None].float(), rois, SIDE, 1.0, 0, aligned=True)[:, 0] for layer in r.full
        ]
        crops.append(dict(zip((OCCLUDEE, OCCLUDER), (MapTarget(layer >= 0.5) for layer in aligned), strict=True)))
    return join_crops(crops)


def _check_agreement(layers: Layers, published: Layers) -> None:
    pairs = [(layers[name].values, published[name].values) for name in (OCCLUDEE, OCCLUDER)]
    different = torch.stack([ours != theirs for ours, theirs in pairs]).float().mean().item()
    if different > MAX_DIFFERENT:
        raise RuntimeError(f"crops of windows and of full images disagree in {different:.2%} of their pixels")
    one_by_one = targets_by_region(layers)
    for name, target in targets_at_once(layers).items():
        if not torch.equal(target.values, one_by_one[name].values):
            raise RuntimeError("boundaries of the batch and of single RoIs disagree")


def _regions(image: CrowdedImage, count: int, generator: torch.Generator, device: str) -> Regions:
    """RoIs near the boxes of an image's objects."""
    targets = image.targets().to(device)
    instances = torch.arange(count) % len(targets)
    boxes = image.boxes[instances]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    boxes = boxes + 0.1 * sides * (torch.rand(boxes.shape, generator=generator) - 0.5)
    return Regions(boxes.to(device), instances.to(device), targets.masks, image.masks.bool().to(device))
