"""The mask branch that both detectors share: pool, predict, and either compare with targets or fill detections.

Letters: N RoIs of all images, D detections of an image, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bcnet.bilayer import MaskLossWeights, crop_layers, mask_losses, mask_targets
from bcnet.modeling.pooler import RoIPooler
from bcnet.structures import Detections, Targets


@dataclass
class MaskRoIs:
    """The regions of one image that train the mask head.

    Attributes:
        boxes: float32 [n, 4], xyxy in absolute pixels.
        instances: int64 [n], the ground-truth instance that each region shows.
    """

    boxes: Tensor
    instances: Tensor


class MaskBranch(nn.Module):
    """RoI pooling and a mask head, with the losses and the inference that belong to it."""

    def __init__(
        self,
        pooler: RoIPooler,
        head: nn.Module,
        *,
        loss_weights: MaskLossWeights,
        occluder_negative_ratio: float = 1.0,
    ) -> None:
        """
        Args:
            head: BilayerMaskHead or PlainMaskHead.
            loss_weights, occluder_negative_ratio: of `mask_losses`.
        """
        super().__init__()
        self.pooler = pooler
        self.head = head
        self.loss_weights = loss_weights
        self.occluder_negative_ratio = occluder_negative_ratio

    def losses(
        self, features: Sequence[Tensor], rois: Sequence[MaskRoIs], targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        """The mask head's losses by name; zero, and still differentiable, where there is no region."""
        classes = torch.cat([t.classes[r.instances] for r, t in zip(rois, targets, strict=True)])
        logits = self.head(self.pooler(features, [r.boxes for r in rois])).of_class(classes)
        side = logits.occludee_mask.shape[-1]
        layers = torch.cat(
            [
                crop_layers(t.masks.bitmaps, t.masks.origins, r.boxes, r.instances, side)
                for r, t in zip(rois, targets, strict=True)
            ],
            dim=1,
        )
        return mask_losses(
            logits,
            mask_targets(layers),
            weights=self.loss_weights,
            occluder_negative_ratio=self.occluder_negative_ratio,
        )

    def predict(
        self, features: Sequence[Tensor], detections: Sequence[Detections], with_occluder: bool
    ) -> list[Detections]:
        """Adds the occludee's mask to detections, and on request the other three maps that the head has."""
        pooled = self.pooler(features, [d.boxes for d in detections])
        logits = self.head(pooled, masks_only=not with_occluder)
        logits = logits.of_class(torch.cat([d.classes for d in detections])).float()
        sizes = [len(d) for d in detections]
        maps = {name: values.sigmoid().split(sizes) for name, values in logits._asdict().items() if values is not None}
        return [
            replace(d, **{name: values[image] for name, values in maps.items()}) for image, d in enumerate(detections)
        ]
