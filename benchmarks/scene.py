"""Random crowded images with ground truth, as input of the training benchmarks.

Letters: G instances, H x W image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_convert

from bcnet.occlusion import occluder_rles
from bcnet.ops.rle import RLE, segmentation_to_rle
from bcnet.structures import InstanceMasks, Targets
from benchmarks.occluders import coco_like_scenes

_MIN_SIDE = 8  # minimum side of a box in pixels


@dataclass
class CrowdedImage:
    """An image with exactly G objects.

    Attributes:
        image: uint8 [3, H, W], noise.
        boxes: float32 [G, 4], xyxy in pixels.
        classes: int64 [G], 0..K-1.
        rles: masks of the occludees, G compressed RLEs.
        masks: uint8 [2, G, H, W], masks of the occludees and of their occluders.
    """

    image: Tensor
    boxes: Tensor
    classes: Tensor
    rles: list[RLE]
    masks: Tensor

    def targets(self) -> Targets:
        """The targets in the form of our detectors."""
        occludee, occluder = self.masks
        masks = InstanceMasks.from_full({"occludee": occludee, "occluder": occluder})
        return Targets(self.boxes, self.classes, masks)

    def peer_targets(self, *, with_masks: bool = True) -> dict[str, Tensor]:
        """The targets in the form of torchvision's detectors, whose classes start at 1."""
        masks = {"masks": self.masks[0]} if with_masks else {}
        return {"boxes": self.boxes, "labels": self.classes + 1, **masks}


def crowded_image(
    count: int, size: tuple[int, int] = (800, 1333), *, num_classes: int = 80, seed: int = 0
) -> CrowdedImage:
    """An image with shapes like COCO's in size and overlap (`coco_like_scenes`), and their occluders by the rule.

    Args:
        count: G.
        size: (H, W).
        num_classes: K.
    """
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    boxes, segmentations = [], []
    while len(boxes) < count:
        seed += 1000  # does not collide with the seeds of other images
        for scene_boxes, scene_segmentations, _ in coco_like_scenes(10, size, seed):
            for box, segmentation in zip(scene_boxes, scene_segmentations, strict=True):
                if min(box[2:]) >= _MIN_SIDE:
                    boxes.append(box)
                    segmentations.append(segmentation)
    boxes, segmentations = boxes[:count], segmentations[:count]
    rles = [segmentation_to_rle(segmentation, *size) for segmentation in segmentations]
    occluders = occluder_rles(boxes, rles, [False] * count, size)
    nothing = np.zeros(size, dtype=np.uint8)
    layers = [
        [coco_mask.decode(rle) for rle in rles],
        [nothing if rle is None else coco_mask.decode(rle) for rle in occluders],
    ]
    return CrowdedImage(
        torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator),
        box_convert(torch.tensor(boxes, dtype=torch.float32), "xywh", "xyxy"),
        torch.randint(0, num_classes, (count,), generator=generator),
        rles,
        torch.from_numpy(np.stack([np.stack(masks) for masks in layers])),
    )
