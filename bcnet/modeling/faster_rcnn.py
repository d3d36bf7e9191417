"""Faster R-CNN with a mask branch (detectron2's GeneralizedRCNN with StandardROIHeads)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bcnet.modeling.box_branch import BoxBranch
from bcnet.modeling.checkpoint_adapter import DETECTRON2, TORCHVISION, CheckpointAdapter, Rule
from bcnet.modeling.detector import Detector
from bcnet.modeling.mask_branch import MaskBranch, MaskRoIs
from bcnet.modeling.mask_heads import build_mask_branch
from bcnet.modeling.registry import DETECTOR_REGISTRY, Backbone, build_backbone, level_strides
from bcnet.modeling.rpn import RPN
from bcnet.modeling.thresholds import Thresholds
from bcnet.structures import Detections, Targets


class FasterRCNNAdapter(CheckpointAdapter):
    """Parameter names of the RPN and the box branch, and the prefix of the mask head."""

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        if dialect == DETECTRON2:
            return [
                ("rpn.head.conv.0.0.*", "proposal_generator.rpn_head.conv.*"),
                ("rpn.head.cls_logits.*", "proposal_generator.rpn_head.objectness_logits.*"),
                ("rpn.head.bbox_pred.*", "proposal_generator.rpn_head.anchor_deltas.*"),
                ("box_branch.head.fcs.{i}.*", "roi_heads.box_head.fc{i+1}.*"),
                ("box_branch.head.cls_score.*", "roi_heads.box_predictor.cls_score.*"),
                ("box_branch.head.bbox_pred.*", "roi_heads.box_predictor.bbox_pred.*"),
            ]
        if dialect == TORCHVISION:
            return [
                ("rpn.head.conv.0.0.*", "rpn.head.conv.0.0.*"),
                ("rpn.head.conv.0.0.*", "rpn.head.conv.*"),  # in older files
                ("rpn.head.cls_logits.*", "rpn.head.cls_logits.*"),
                ("rpn.head.bbox_pred.*", "rpn.head.bbox_pred.*"),
                ("box_branch.head.fcs.{i}.*", "roi_heads.box_head.fc{i+6}.*"),
                ("box_branch.head.cls_score.*", "roi_heads.box_predictor.cls_score.*"),
                ("box_branch.head.bbox_pred.*", "roi_heads.box_predictor.bbox_pred.*"),
            ]
        return ()

    def mask_head(self, dialect: str) -> str | None:
        return {DETECTRON2: "roi_heads.mask_head.", TORCHVISION: "roi_heads."}.get(dialect)


@DETECTOR_REGISTRY.register(name="GeneralizedRCNN")
class FasterRCNN(Detector):
    """RPN, box branch, and a mask branch trained on the sampled foreground proposals."""

    checkpoint_adapter = FasterRCNNAdapter()

    def __init__(
        self,
        *,
        backbone: Backbone,
        rpn: RPN,
        rpn_features: Sequence[str],
        box_branch: BoxBranch,
        mask_branch: MaskBranch | None,
        mask_features: Sequence[str],
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            rpn_features: names of the levels with anchors, fine to coarse.
            mask_features: names of the levels that masks and boxes are pooled from, fine to coarse.
            Others: see `Detector`.
        """
        super().__init__(
            backbone=backbone,
            mask_branch=mask_branch,
            mask_features=mask_features,
            num_classes=num_classes,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        self.rpn = rpn
        self.rpn_features = list(rpn_features)
        self.box_branch = box_branch

    @classmethod
    def from_config(cls, cfg) -> FasterRCNN:
        """Reads MODEL and TEST.DETECTIONS_PER_IMAGE.

        Raises:
            ValueError: a name that is not registered, a level that the backbone lacks, or values that a component
                rejects.
        """
        backbone = build_backbone(cfg)
        levels = cfg.MODEL.ROI_HEADS.IN_FEATURES
        strides = level_strides(backbone, levels, "MODEL.ROI_HEADS.IN_FEATURES")
        return cls(
            backbone=backbone,
            mask_branch=build_mask_branch(cfg, backbone.out_channels, strides),
            rpn=RPN.from_config(cfg, backbone),
            rpn_features=cfg.MODEL.RPN.IN_FEATURES,
            box_branch=BoxBranch.from_config(cfg, backbone),
            mask_features=levels,
            num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
        )

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.rpn.head, self.box_branch.head]

    def detection_losses(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]
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
    def max_detections(self) -> int | None:
        return self.box_branch.max_detections

    def detect(
        self,
        features: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds | None = None,
    ) -> list[Detections]:
        proposals, _, _ = self.rpn([features[name] for name in self.rpn_features], image_sizes, None)
        detections = self.box_branch.detect(self._pooled(features), proposals, image_sizes, thresholds)
        return [Detections(size, *detection) for size, detection in zip(image_sizes, detections, strict=True)]
