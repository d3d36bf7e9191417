"""Benchmark of mask pasting to RLEs: per-box windows against full images.

Letters: D detections, M mask side, H x W image.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from bcnet.ops.rle import RLE
from bcnet.structures import Detections
from benchmarks.row import BenchmarkRow
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import interleaved

SIDE = 28  # M
# torchvision rounds boxes to integers and pads the masks, which moves edges by up to a pixel.
LEAST_MEAN_IOU = 0.9


def benchmark_paste(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Times `Detections.mask_rles` against torchvision's pasting and pycocotools' encoding of the full masks.

    Raises:
        RuntimeError: the masks of the two implementations differ too much.
    """
    count, size = (10, (540, 960)) if settings.quick else (100, (1080, 1920))
    detections = random_detections(count, size, seed=settings.seed).to(settings.device)
    ious = _ious(detections.mask_rles(), rles_of_full_masks(detections))
    if ious.mean() < LEAST_MEAN_IOU:
        raise RuntimeError(f"pasted masks disagree: their mean IoU is {ious.mean():.3f}")
    seconds = interleaved(
        {"ours": detections.mask_rles, "peer": lambda: rles_of_full_masks(detections)},
        settings.repeats,
        clock=settings.clock,
    )
    return [
        BenchmarkRow(
            f"paste and encode {count} masks at {size[0]} x {size[1]}",
            "torchvision's paste, then pycocotools' encode",
            seconds["ours"],
            seconds["peer"],
            "image",
            name="paste",
            required=5.0,
        )
    ]


def random_detections(count: int, size: tuple[int, int], seed: int = 0) -> Detections:
    """Detections with the box sizes of `coco_like_scenes`, scaled to the image, and round masks with uneven edges."""
    height, width = size
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    radii = (torch.randn(count, 1, generator=generator) * 1.1 + 3.4).exp() * height / 480
    half = radii.clamp(4, 0.45 * height) * (0.5 + 0.5 * rand(count, 2))
    centres = rand(count, 2) * torch.tensor([width, height])
    limits = torch.tensor([width, height, width, height])
    boxes = torch.minimum(torch.cat([centres - half, centres + half], dim=1).clamp(min=0), limits)
    # Smooth noise added to a smooth blob, because a mask head's maps are smooth.
    noise = F.interpolate(rand(count, 1, 7, 7) - 0.5, size=(SIDE, SIDE), mode="bilinear")[:, 0]
    axis = torch.linspace(-1, 1, SIDE)
    hill = 0.9 - axis[:, None] ** 2 - axis**2
    return Detections(
        size,
        boxes,
        rand(count).sort(descending=True).values,
        torch.zeros(count, dtype=torch.int64),
        maps={"occludee_mask": torch.sigmoid(6 * (hill + noise))},
    )


def rles_of_full_masks(detections: Detections) -> list[RLE]:
    """Pastes every mask into a full image, thresholds and encodes it."""
    pasted = paste_masks_in_image(detections.maps["occludee_mask"][:, None], detections.boxes, detections.image_size)
    masks = (pasted[:, 0] >= detections.mask_threshold).cpu().numpy().astype(np.uint8)
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]


def _ious(ours: list[RLE], theirs: list[RLE]) -> np.ndarray:
    ious = [np.asarray(coco_mask.iou([a], [b], [0])) for a, b in zip(ours, theirs, strict=True)]
    return np.concatenate(ious).ravel()
