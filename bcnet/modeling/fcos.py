"""FCOS with a mask branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher

from bcnet.fcos import FCOSHead, FCOSOutput, assign_targets, decode_detections, fcos_losses, level_points
from bcnet.modeling.detector import Detector
from bcnet.modeling.mask_branch import MaskRoIs
from bcnet.modeling.matching import match_boxes
from bcnet.modeling.thresholds import Thresholds
from bcnet.structures import Detections, Targets

ALMOST = 1 - 1e-6  # so that the rounding of squares and roots loses nothing


class FCOSDetection:
    """What FCOS does around its head: from points to losses, to boxes, and to the regions that train masks.

    It holds settings and no parameters, so that any detector with an `FCOSHead` can call it.
    """

    def __init__(
        self,
        strides: Sequence[int],
        num_classes: int,
        *,
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
    ) -> None:
        """
        Args:
            strides: of the levels that detect in pixels, fine to coarse.
            num_classes: K.
            mask_iou_threshold: overlap with its object from which on a detection trains the mask branch.
            Others: see `assign_targets`, `fcos_losses` and `decode_detections`.
        """
        self.strides = list(strides)
        self.num_classes = num_classes
        self.assignment = {"center_sampling_radius": center_sampling_radius, "sizes_of_interest": sizes_of_interest}
        self.loss = {"focal_alpha": focal_alpha, "focal_gamma": focal_gamma, "box_weight": box_loss_weight}
        self.decoding = {
            "score_threshold": score_threshold,
            "topk": topk,
            "nms_threshold": nms_threshold,
            "max_detections": max_detections,
        }
        self.mask_matcher = Matcher(mask_iou_threshold, mask_iou_threshold)

    def points(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Per level [B, C, H_l, W_l], its points: float32 [H_l * W_l, 2], (x, y) in absolute pixels."""
        return [
            level_points(*level.shape[-2:], stride, device=level.device)
            for level, stride in zip(levels, self.strides, strict=True)
        ]

    def losses(
        self,
        output: FCOSOutput,
        points: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        gt_classes: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """The losses by name, see `fcos_losses`.

        Args:
            gt_boxes: per image float32 [G, 4], xyxy in absolute pixels.
            gt_classes: per image int64 [G].
        """
        assigned = assign_targets(
            points, self.strides, gt_boxes, gt_classes, num_classes=self.num_classes, **self.assignment
        )
        return fcos_losses(output, assigned, **self.loss)

    def detect(
        self,
        output: FCOSOutput,
        points: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds | None = None,
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes, scores and classes of each image, see `decode_detections`."""
        decoding = dict(self.decoding)
        if thresholds is not None and thresholds.score is not None:
            # The score is at most the root of the probability, which therefore is at least its square.
            decoding |= {"score_threshold": ALMOST * thresholds.score**2, "min_score": thresholds.score}
        if thresholds is not None and thresholds.nms is not None:
            decoding["nms_threshold"] = thresholds.nms
        if thresholds is not None and thresholds.max_detections is not None:
            decoding["max_detections"] = thresholds.max_detections
        return decode_detections(output, points, self.strides, image_sizes, **decoding)

    @torch.no_grad()
    def mask_rois(
        self,
        output: FCOSOutput,
        points: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        gt_boxes: Sequence[Tensor],
    ) -> list[MaskRoIs]:
        """Per image the detections and the ground-truth boxes that overlap an object enough to train its mask.

        The published code decodes these detections without the level's stride, so that in effect only
        ground-truth boxes train its mask head; here they are decoded as in inference.
        """
        rois = []
        for (boxes, _, _), gt in zip(self.detect(output, points, image_sizes), gt_boxes, strict=True):
            boxes = torch.cat([boxes, gt])
            matched = match_boxes(self.mask_matcher, gt, boxes)
            foreground = torch.nonzero(matched >= 0)[:, 0]
            rois.append(MaskRoIs(boxes[foreground], matched[foreground]))
        return rois


class FCOS(Detector):
    """FCOS, and a mask branch trained on its own detections plus the ground-truth boxes."""

    def __init__(self, *args, head: FCOSHead, fcos_features: Sequence[str], detection: FCOSDetection, **kwargs) -> None:
        """
        Args:
            fcos_features: names of the levels that detect, fine to coarse.
            detection: made for these levels.
            Others: see `Detector`.
        """
        super().__init__(*args, **kwargs)
        self.head = head
        self.fcos_features = list(fcos_features)
        self.detection = detection

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.head]

    def predict_points(self, features: dict[str, Tensor]) -> tuple[FCOSOutput, list[Tensor]]:
        """The head's output and the points of each level that it belongs to."""
        levels = [features[name] for name in self.fcos_features]
        return self.head(levels), self.detection.points(levels)

    def detection_losses(
        self, features: dict[str, Tensor], image_sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]
    ) -> tuple[dict[str, Tensor], list[MaskRoIs]]:
        output, points = self.predict_points(features)
        gt_boxes = [t.boxes for t in targets]
        losses = self.detection.losses(output, points, gt_boxes, [t.classes for t in targets])
        if self.mask_branch is None:
            return losses, []
        return losses, self.detection.mask_rois(output, points, image_sizes, gt_boxes)

    @property
    def nms_threshold(self) -> float:
        return self.detection.decoding["nms_threshold"]

    @property
    def max_detections(self) -> int:
        return self.detection.decoding["max_detections"]

    def detect(
        self,
        features: dict[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds | None = None,
    ) -> list[Detections]:
        found = self.detection.detect(*self.predict_points(features), image_sizes, thresholds)
        return [Detections(size, *detection) for size, detection in zip(image_sizes, found, strict=True)]
