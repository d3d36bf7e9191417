"""FCOS detector with a mask branch: config, points, target assignment, losses, decoding and mask RoIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher

from bcnet.fcos import FCOSHead, FCOSOutput, assign_targets, decode_detections, fcos_losses, level_points
from bcnet.modeling.checkpoint_adapter import DETECTRON2, PUBLISHED, TORCHVISION, CheckpointAdapter, Rule
from bcnet.modeling.detector import Detector
from bcnet.modeling.mask_branch import MaskBranch, MaskRoIs
from bcnet.modeling.mask_heads import build_mask_branch
from bcnet.modeling.matching import match_boxes
from bcnet.modeling.registry import DETECTOR_REGISTRY, Backbone, build_backbone, level_strides
from bcnet.modeling.thresholds import Thresholds, max_detections_of
from bcnet.structures import Detections, Targets

ALMOST = 1 - 1e-6  # margin for the rounding of squares and roots


class FCOSDetection:
    """FCOS outside of its head: points, losses, box decoding, and the training RoIs of the mask branch.

    It has settings but no parameters, so that any detector with an `FCOSHead` can use it.
    """

    def __init__(
        self,
        strides: Sequence[int],
        num_classes: int,
        *,
        center_sampling_radius: float,
        sizes_of_interest: Sequence[float],
        focal_alpha: float,
        focal_gamma: float,
        box_loss_weight: float,
        score_threshold: float,
        topk: int,
        nms_threshold: float,
        max_detections: int | None,
        mask_iou_threshold: float,
        mask_rois_per_image: int = 0,
    ) -> None:
        """
        Args:
            strides: of the detection levels in pixels, fine to coarse.
            num_classes: K.
            mask_iou_threshold: minimum IoU with an object for a detection to train the mask branch.
            mask_rois_per_image: maximum number of training RoIs of the mask branch, a random sample; 0 takes all.
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
        self.mask_rois_per_image = mask_rois_per_image

    @classmethod
    def from_config(cls, cfg, strides: Sequence[int]) -> FCOSDetection:
        """Reads MODEL.FCOS, MODEL.ROI_HEADS.NUM_CLASSES and IOU_THRESHOLDS, and TEST.DETECTIONS_PER_IMAGE.

        Args:
            strides: of the levels of MODEL.FCOS.IN_FEATURES in pixels.
        """
        fcos = cfg.MODEL.FCOS
        return cls(
            strides,
            cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            center_sampling_radius=fcos.CENTER_SAMPLING_RADIUS,
            sizes_of_interest=fcos.SIZES_OF_INTEREST,
            focal_alpha=fcos.FOCAL_LOSS_ALPHA,
            focal_gamma=fcos.FOCAL_LOSS_GAMMA,
            box_loss_weight=fcos.BOX_LOSS_WEIGHT,
            score_threshold=fcos.SCORE_THRESH_TEST,
            topk=fcos.TOPK_CANDIDATES_TEST,
            nms_threshold=fcos.NMS_THRESH_TEST,
            max_detections=max_detections_of(cfg),
            mask_iou_threshold=cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0],
            mask_rois_per_image=fcos.MASK_ROIS_PER_IMAGE,
        )

    def points(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Per level [B, C, H_l, W_l], its points: float32 [H_l * W_l, 2], (x, y) in absolute pixels."""
        return [
            level_points(level.shape[-2], level.shape[-1], stride, device=level.device)
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
            # score = sqrt(probability * centerness) <= sqrt(probability), so probability >= score ** 2.
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
        """Training RoIs of the mask branch per image: detections that overlap an object enough, and ground-truth boxes.

        The published code decodes these detections without the level's stride, so that in effect only
        ground-truth boxes train its mask head; here they are decoded as in inference. At most `mask_rois_per_image` of
        an image are sampled.
        """
        rois = []
        for (boxes, _, _), gt in zip(self.detect(output, points, image_sizes), gt_boxes, strict=True):
            boxes = torch.cat([boxes, gt])
            matched = match_boxes(self.mask_matcher, gt, boxes)
            foreground = torch.nonzero(matched >= 0)[:, 0]
            found = MaskRoIs(boxes[foreground], matched[foreground])
            rois.append(found.sampled(self.mask_rois_per_image) if self.mask_rois_per_image else found)
        return rois


def build_fcos_head(cfg, channels: int) -> FCOSHead:
    """The head of MODEL.FCOS, for features of `channels` channels.

    Raises:
        ValueError: MODEL.FCOS.NORM_GROUPS does not divide `channels`.
    """
    fcos = cfg.MODEL.FCOS
    if channels % fcos.NORM_GROUPS:
        raise ValueError(
            f"MODEL.FCOS.NORM_GROUPS is {fcos.NORM_GROUPS} and does not divide the {channels} channels of the features"
        )
    return FCOSHead(
        channels,
        cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        num_levels=len(fcos.IN_FEATURES),
        num_conv=fcos.NUM_CONVS,
        norm_groups=fcos.NORM_GROUPS,
        prior_prob=fcos.PRIOR_PROB,
    )


class FCOSAdapter(CheckpointAdapter):
    """Parameter names of the FCOS head, and the prefix of the mask head."""

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        return {
            DETECTRON2: [("head.**", "head.**")],
            PUBLISHED: [
                ("head.box_tower.**", "head.bbox_tower.**"),
                ("head.distances.*", "head.bbox_pred.*"),
                ("head.scales.{i}", "head.scales.{i}.scale"),
                ("head.**", "head.**"),
            ],
            TORCHVISION: [
                ("head.cls_tower.**", "head.classification_head.conv.**"),
                ("head.box_tower.**", "head.regression_head.conv.**"),
                ("head.cls_logits.*", "head.classification_head.cls_logits.*"),
                ("head.distances.*", "head.regression_head.bbox_reg.*"),
                ("head.centerness.*", "head.regression_head.bbox_ctrness.*"),
            ],
        }.get(dialect, ())

    def mask_head(self, dialect: str) -> str | None:
        return "mask_head." if dialect in (DETECTRON2, PUBLISHED) else None


@DETECTOR_REGISTRY.register(name="BCNetFCOS")
class FCOS(Detector):
    """FCOS, and a mask branch trained on its own detections plus the ground-truth boxes."""

    checkpoint_adapter = FCOSAdapter()

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: FCOSHead,
        detection: FCOSDetection,
        fcos_features: Sequence[str],
        mask_branch: MaskBranch | None,
        mask_features: Sequence[str],
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            head, detection: built for the levels of `fcos_features`.
            fcos_features: names of the detection levels, fine to coarse.
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
        self.head = head
        self.fcos_features = list(fcos_features)
        self.detection = detection

    @classmethod
    def from_config(cls, cfg) -> FCOS:
        """Reads MODEL; masks are pooled from the detection levels, MODEL.FCOS.IN_FEATURES.

        Raises:
            ValueError: a name that is not registered, a level that the backbone lacks, or values that a component
                rejects.
        """
        backbone = build_backbone(cfg)
        levels = cfg.MODEL.FCOS.IN_FEATURES
        strides = level_strides(backbone, levels, "MODEL.FCOS.IN_FEATURES")
        return cls(
            backbone=backbone,
            mask_branch=build_mask_branch(cfg, backbone.out_channels, strides),
            head=build_fcos_head(cfg, backbone.out_channels),
            detection=FCOSDetection.from_config(cfg, strides),
            fcos_features=levels,
            mask_features=levels,
            num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
        )

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.head]

    def predict_points(self, features: Mapping[str, Tensor]) -> tuple[FCOSOutput, list[Tensor]]:
        """The head's output, and the points of each level."""
        levels = [features[name] for name in self.fcos_features]
        return self.head(levels), self.detection.points(levels)

    def detection_losses(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]
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
    def max_detections(self) -> int | None:
        return self.detection.decoding["max_detections"]

    def detect(
        self,
        features: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds | None = None,
    ) -> list[Detections]:
        detections = self.detection.detect(*self.predict_points(features), image_sizes, thresholds)
        return [Detections(size, *detection) for size, detection in zip(image_sizes, detections, strict=True)]
