"""The mask branch of both detectors: RoI pooling and a mask head, with losses and inference.

Letters: N RoIs of all images, D detections of an image, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bcnet.bilayer import MaskHead, crop_layers, join_crops, select_class
from bcnet.maps import required_layers
from bcnet.modeling.pooler import RoIPooler
from bcnet.ops.boxes import jittered_boxes, resized_boxes, scaled_boxes
from bcnet.structures import Detections, Targets


@dataclass
class MaskRoIs:
    """The training RoIs of the mask head for one image.

    Attributes:
        boxes: float32 [n, 4], xyxy in absolute pixels.
        instances: int64 [n], the ground-truth instance that each RoI is matched to.
    """

    boxes: Tensor
    instances: Tensor

    def sampled(self, maximum: int) -> MaskRoIs:
        """At most `maximum` of the RoIs, drawn at random without replacement, in their order."""
        if len(self.boxes) <= maximum:
            return self
        chosen = torch.randperm(len(self.boxes), device=self.boxes.device)[:maximum].sort().values
        return MaskRoIs(self.boxes[chosen], self.instances[chosen])


class MaskBranch(nn.Module):
    """RoI pooling and a mask head, with their losses and inference."""

    def __init__(
        self,
        pooler: RoIPooler,
        head: MaskHead,
        *,
        negative_ratio: float = 1.0,
        roi_scale: float = 1.0,
        box_jitter: float = 0.0,
        num_classes: int = 1,
    ) -> None:
        """
        Args:
            pooler: pools the features of the RoIs.
            head: predicts the maps.
            negative_ratio: see `bcnet.bilayer.balanced_rois`.
            roi_scale: the RoIs are the boxes scaled by this factor around their centre, in training and inference.
            box_jitter: see `jittered_boxes`, of the training RoIs.
            num_classes: of the head's masks; 1 for class-agnostic ones.
        """
        super().__init__()
        self.pooler = pooler
        self.head = head
        self.negative_ratio = negative_ratio
        self.roi_scale = roi_scale
        self.box_jitter = box_jitter
        self.num_classes = num_classes

    @property
    def target_layers(self) -> tuple[str, ...]:
        """Layers of `InstanceMasks` that the head's targets need."""
        return required_layers(self.head.maps)

    def jittered(self, rois: Sequence[MaskRoIs], image_sizes: Sequence[tuple[int, int]]) -> list[MaskRoIs]:
        """Training RoIs with jittered boxes; without jitter the RoIs themselves, and no random draw."""
        if not self.box_jitter:
            return list(rois)
        return [
            replace(r, boxes=jittered_boxes(r.boxes, self.box_jitter, size))
            for r, size in zip(rois, image_sizes, strict=True)
        ]

    def losses(
        self, features: Sequence[Tensor], rois: Sequence[MaskRoIs], targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """The mask head's losses by name; zero, and still differentiable, where there is no RoI."""
        classes = torch.cat([t.classes[r.instances] for r, t in zip(rois, targets, strict=True)])
        boxes = [scaled_boxes(r.boxes, self.roi_scale) for r in rois]
        logits = select_class(self.head(self.pooler(features, boxes)), classes)
        side = next(iter(logits.values())).shape[-1]
        crops = [crop_layers(t.masks, b, r.instances, side) for r, b, t in zip(rois, boxes, targets, strict=True)]
        return self.head.losses(logits, join_crops(crops), negative_ratio=self.negative_ratio)

    def predict(
        self,
        features: Sequence[Tensor],
        detections: Sequence[Detections],
        image_sizes: Sequence[tuple[int, int]],
        all_maps: bool,
    ) -> list[Detections]:
        """Adds maps to detections: all that the head has, or only those that are not `MapSpec.on_request`.

        Args:
            detections: per image, in pixels of their `image_size`.
            image_sizes: (h, w) of the network's inputs, which the features are of.
        """
        specs = [spec for spec in self.head.maps if all_maps or not spec.on_request]
        detections = [replace(d, roi_scale=self.roi_scale) for d in detections]
        rois = [resized_boxes(d.map_boxes, d.image_size, size) for d, size in zip(detections, image_sizes, strict=True)]
        pooled = self.pooler(features, rois)
        logits = select_class(
            self.head(pooled, [spec.name for spec in specs]), torch.cat([d.classes for d in detections])
        )
        sizes = [len(d) for d in detections]
        maps = {name: values.float().sigmoid().split(sizes) for name, values in logits.items()}
        return [
            replace(d, maps={name: values[image] for name, values in maps.items()}, specs=tuple(specs))
            for image, d in enumerate(detections)
        ]
