"""Faster R-CNN with a mask branch (detectron2's GeneralizedRCNN with StandardROIHeads)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bcnet.modeling.box_branch import BoxBranch
from bcnet.modeling.detector import Detector
from bcnet.modeling.mask_branch import MaskRoIs
from bcnet.modeling.rpn import RPN
from bcnet.modeling.thresholds import Thresholds
from bcnet.structures import Detections, Targets


class FasterRCNN(Detector):
    """RPN, box branch, and a mask branch trained on the sampled foreground proposals."""

    def __init__(self, *args, rpn: RPN, rpn_features: Sequence[str], box_branch: BoxBranch, **kwargs) -> None:
        """
        Args:
            rpn_features: names of the levels that carry anchors, fine to coarse.
            Others: see `Detector`; the box branch pools from the same levels as the mask branch.
        """
        super().__init__(*args, **kwargs)
        self.rpn = rpn
        self.rpn_features = list(rpn_features)
        self.box_branch = box_branch

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.rpn.head, self.box_branch.head]

    def detection_losses(
        self, features: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]
    ) -> tuple[dict[str, Tensor], list[MaskRoIs]]:
        gt_boxes = [t.boxes for t in targets]
        proposals, _, losses = self.rpn([features[name] for name in self.rpn_features], image_sizes, gt_boxes)
        sampled = self.box_branch.sample(proposals, gt_boxes, [t.classes for t in targets])
        losses.update(self.box_branch.losses(self._pooled(features), sampled, gt_boxes))
        rois = []
        for boxes, _, instances in sampled:
            foreground = torch.nonzero(instances >= 0)[:, 0]
            rois.append(MaskRoIs(boxes[foreground], instances[foreground]))
        return losses, rois

    @property
    def nms_threshold(self) -> float:
        return self.box_branch.nms_threshold

    @property
    def max_detections(self) -> int:
        return self.box_branch.max_detections

    def detect(
        self,
        features: dict[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds | None = None,
    ) -> list[Detections]:
        proposals, _, _ = self.rpn([features[name] for name in self.rpn_features], image_sizes, None)
        found = self.box_branch.detect(self._pooled(features), proposals, image_sizes, thresholds)
        return [Detections(size, *detection) for size, detection in zip(image_sizes, found, strict=True)]
