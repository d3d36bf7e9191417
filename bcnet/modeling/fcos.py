"""FCOS with a mask branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher

from bcnet.fcos import FCOSHead, FCOSOutput, assign_targets, decode_detections, fcos_losses, level_points
from bcnet.modeling.detector import Detector
from bcnet.modeling.mask_branch import MaskRoIs
from bcnet.modeling.matching import match_boxes
from bcnet.structures import Detections, Targets


class FCOS(Detector):
    """FCOS, and a mask branch trained on its own detections plus the ground-truth boxes.

    The published code decodes these training proposals without the level's stride, so that in effect only
    ground-truth boxes train its mask head; here they are decoded as in inference.
    """

    def __init__(
        self,
        *args,
        head: FCOSHead,
        fcos_features: Sequence[str],
        center_sampling_radius: float = 1.5,
        sizes_of_interest: Sequence[float] = (64, 128, 256, 512),
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        box_loss_weight: float = 1.25,
        score_threshold: float = 0.03,
        topk: int = 1000,
        nms_threshold: float = 0.6,
        max_detections: int = 100,
        mask_iou_threshold: float = 0.5,
        **kwargs,
    ) -> None:
        """
        Args:
            fcos_features: names of the levels that detect, fine to coarse.
            mask_iou_threshold: overlap with its object from which on a detection trains the mask branch.
            Others: see `Detector`, `assign_targets`, `fcos_losses` and `decode_detections`.
        """
        super().__init__(*args, **kwargs)
        self.head = head
        self.fcos_features = list(fcos_features)
        self.strides = [self.backbone.strides[name] for name in fcos_features]
        self.assignment = {"center_sampling_radius": center_sampling_radius, "sizes_of_interest": sizes_of_interest}
        self.loss = {"focal_alpha": focal_alpha, "focal_gamma": focal_gamma, "box_weight": box_loss_weight}
        self.decoding = {
            "score_threshold": score_threshold,
            "topk": topk,
            "nms_threshold": nms_threshold,
            "max_detections": max_detections,
        }
        self.mask_matcher = Matcher(mask_iou_threshold, mask_iou_threshold)

    def predict_points(self, features: dict[str, Tensor]) -> tuple[FCOSOutput, list[Tensor]]:
        """The head's output and the points of each level that it belongs to."""
        levels = [features[name] for name in self.fcos_features]
        points = [
            level_points(*level.shape[-2:], stride, device=level.device)
            for level, stride in zip(levels, self.strides, strict=True)
        ]
        return self.head(levels), points

    def detection_losses(
        self, features: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]
    ) -> tuple[dict[str, Tensor], list[MaskRoIs]]:
        output, points = self.predict_points(features)
        assigned = assign_targets(
            points,
            self.strides,
            [t.boxes for t in targets],
            [t.classes for t in targets],
            num_classes=self.num_classes,
            **self.assignment,
        )
        losses = fcos_losses(output, assigned, **self.loss)
        if self.mask_branch is None:
            return losses, []
        return losses, self._mask_rois(output, points, image_sizes, targets)

    @torch.no_grad()
    def _mask_rois(
        self,
        output: FCOSOutput,
        points: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[Targets],
    ) -> list[MaskRoIs]:
        detections = decode_detections(output, points, self.strides, image_sizes, **self.decoding)
        rois = []
        for (boxes, _, _), target in zip(detections, targets, strict=True):
            boxes = torch.cat([boxes, target.boxes])
            matched = match_boxes(self.mask_matcher, target.boxes, boxes)
            foreground = torch.nonzero(matched >= 0)[:, 0]
            rois.append(MaskRoIs(boxes[foreground], matched[foreground]))
        return rois

    def detect(self, features: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        output, points = self.predict_points(features)
        found = decode_detections(output, points, self.strides, image_sizes, **self.decoding)
        return [Detections(size, *detection) for size, detection in zip(image_sizes, found, strict=True)]
