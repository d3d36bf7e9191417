"""The box branch of Faster R-CNN: RoI pooling, class scores and box regression of each proposal.

Letters: N proposals of all images, K classes, D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import batched_nms, clip_boxes_to_image

from bcnet.distributed import loss_normalizer
from bcnet.modeling.matching import match_boxes
from bcnet.modeling.pooler import RoIPooler
from bcnet.modeling.registry import Backbone, level_strides
from bcnet.modeling.rpn import smooth_l1
from bcnet.modeling.thresholds import Thresholds, max_detections_of


class BoxHead(nn.Module):
    """Fully connected layers, class logits (background last) and per-class box deltas."""

    def __init__(self, in_features: int, num_classes: int, *, num_fc: int, fc_dim: int, class_agnostic: bool) -> None:
        """
        Args:
            in_features: C * S * S of the pooled features.
            num_classes: K.
            num_fc, fc_dim: number and width of the hidden layers.
            class_agnostic: one box per proposal rather than one per class.
        """
        super().__init__()
        sizes = [in_features] + [fc_dim] * num_fc
        fcs = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.fcs = nn.ModuleList(fcs)
        self.cls_score = nn.Linear(sizes[-1], num_classes + 1)
        self.bbox_pred = nn.Linear(sizes[-1], 4 * (1 if class_agnostic else num_classes))
        for fc in fcs:
            nn.init.kaiming_uniform_(fc.weight, a=1)
            nn.init.zeros_(fc.bias)
        for predictor, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(predictor.weight, std=std)
            nn.init.zeros_(predictor.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Float [N, C, S, S] to class logits [N, K + 1] and box deltas [N, 4 K] (or [N, 4])."""
        x = x.flatten(1)
        for fc in self.fcs:
            x = F.relu(fc(x))
        return self.cls_score(x).float(), self.bbox_pred(x).float()


class BoxBranch(nn.Module):
    """Samples, pools and classifies proposals; detectron2's StandardROIHeads and FastRCNNOutputLayers."""

    def __init__(
        self,
        pooler: RoIPooler,
        head: BoxHead,
        *,
        num_classes: int,
        iou_threshold: float,
        batch_size_per_image: int,
        positive_fraction: float,
        append_gt: bool,
        box_weights: tuple[float, float, float, float],
        smooth_l1_beta: float,
        box_loss_weight: float,
        score_threshold: float,
        nms_threshold: float,
        max_detections: int | None,
    ) -> None:
        """
        Args:
            num_classes: K.
            iou_threshold: minimum IoU with an object for a proposal to be foreground.
            batch_size_per_image: proposals sampled for the losses, at most `positive_fraction` of them foreground.
            append_gt: whether to add the ground-truth boxes to the proposals in training.
            box_weights: of the four deltas (dx, dy, dw, dh).
            smooth_l1_beta: error at which the box loss changes from squared to linear; 0 is L1.
            score_threshold, nms_threshold, max_detections: limits of inference, see `Thresholds`; scores must exceed
                the first; None sets no maximum number.
        """
        super().__init__()
        self.pooler = pooler
        self.head = head
        self.num_classes = num_classes
        self.matcher = Matcher(iou_threshold, iou_threshold, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(batch_size_per_image, positive_fraction)
        self.append_gt = append_gt
        self.box_coder = BoxCoder(box_weights)
        self.smooth_l1_beta = smooth_l1_beta
        self.box_loss_weight = box_loss_weight
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections

    @classmethod
    def from_config(cls, cfg, backbone: Backbone) -> BoxBranch:
        """Reads MODEL.ROI_HEADS, MODEL.ROI_BOX_HEAD and TEST.DETECTIONS_PER_IMAGE.

        Raises:
            ValueError: IN_FEATURES names a level that the backbone does not have.
        """
        heads, box = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
        strides = level_strides(backbone, heads.IN_FEATURES, "MODEL.ROI_HEADS.IN_FEATURES")
        side = box.POOLER_RESOLUTION
        head = BoxHead(
            backbone.out_channels * side**2,
            heads.NUM_CLASSES,
            num_fc=box.NUM_FC,
            fc_dim=box.FC_DIM,
            class_agnostic=box.CLS_AGNOSTIC_BBOX_REG,
        )
        return cls(
            RoIPooler(side, strides, box.POOLER_SAMPLING_RATIO),
            head,
            num_classes=heads.NUM_CLASSES,
            iou_threshold=heads.IOU_THRESHOLDS[0],
            batch_size_per_image=heads.BATCH_SIZE_PER_IMAGE,
            positive_fraction=heads.POSITIVE_FRACTION,
            append_gt=heads.PROPOSAL_APPEND_GT,
            box_weights=box.BBOX_REG_WEIGHTS,
            smooth_l1_beta=box.SMOOTH_L1_BETA,
            box_loss_weight=box.BBOX_REG_LOSS_WEIGHT,
            score_threshold=heads.SCORE_THRESH_TEST,
            nms_threshold=heads.NMS_THRESH_TEST,
            max_detections=max_detections_of(cfg),
        )

    @torch.no_grad()
    def sample(
        self, proposals: Sequence[Tensor], gt_boxes: Sequence[Tensor], gt_classes: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Samples the proposals for training.

        Returns:
            Per image the boxes float32 [n, 4], their classes int64 [n] (K for background) and the matched
            instances int64 [n] (-1 for background), foreground first.
        """
        sampled = []
        for boxes, gt, classes in zip(proposals, gt_boxes, gt_classes, strict=True):
            if self.append_gt:
                boxes = torch.cat([boxes, gt])
            matched = match_boxes(self.matcher, gt, boxes)
            (positive,), (negative,) = self.sampler([(matched >= 0).float()])
            foreground, background = torch.nonzero(positive)[:, 0], torch.nonzero(negative)[:, 0]
            index = torch.cat([foreground, background])
            labels = torch.full_like(index, self.num_classes)
            labels[: len(foreground)] = classes[matched[foreground]]
            sampled.append((boxes[index], labels, matched[index]))
        return sampled

    def losses(
        self, features: Sequence[Tensor], sampled: Sequence[tuple[Tensor, Tensor, Tensor]], gt_boxes: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Cross-entropy and smooth L1, both divided by the number of sampled proposals (averaged over processes)."""
        logits, deltas = self.head(self.pooler(features, [boxes for boxes, _, _ in sampled]))
        boxes = torch.cat([boxes for boxes, _, _ in sampled])
        labels = torch.cat([labels for _, labels, _ in sampled])
        matched_boxes = torch.cat(
            [
                gt[instances.clamp(min=0)] if len(gt) else torch.zeros_like(sampled_boxes)
                for gt, (sampled_boxes, _, instances) in zip(gt_boxes, sampled, strict=True)
            ]
        )
        count = loss_normalizer(logits.new_full((), float(len(labels)))).clamp(min=1)
        foreground = torch.nonzero(labels < self.num_classes)[:, 0]
        targets = self.box_coder.encode_single(matched_boxes[foreground], boxes[foreground])
        predicted = deltas.unflatten(1, (-1, 4))[foreground]
        predicted = predicted[torch.arange(len(foreground)), labels[foreground] if predicted.shape[1] > 1 else 0]
        loss_box = smooth_l1(predicted, targets, self.smooth_l1_beta)
        return {
            "loss_cls": F.cross_entropy(logits, labels, reduction="sum") / count,
            "loss_box_reg": self.box_loss_weight * loss_box / count,
        }

    def detect(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds | None = None,
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per image boxes float32 [D, 4] (xyxy, clipped), scores and classes [D], by descending score; N may be 0."""
        thresholds = thresholds or Thresholds()
        nms_threshold = self.nms_threshold if thresholds.nms is None else thresholds.nms
        max_detections = thresholds.max_detections or self.max_detections
        logits, deltas = self.head(self.pooler(features, proposals))
        decoded = self.box_coder.decode_single(deltas, torch.cat(list(proposals)))
        sizes = [len(p) for p in proposals]
        probabilities = logits.softmax(dim=1)[:, :-1]
        detections = []
        for boxes, scores, size in zip(decoded.split(sizes), probabilities.split(sizes), image_sizes, strict=True):
            boxes = clip_boxes_to_image(boxes.unflatten(1, (-1, 4)), size)
            high = scores > self.score_threshold if thresholds.score is None else scores >= thresholds.score
            proposal, label = torch.nonzero(high, as_tuple=True)
            boxes = boxes[proposal, label if boxes.shape[1] > 1 else 0]
            scores = scores[proposal, label]
            kept = batched_nms(boxes, scores, label, nms_threshold)[:max_detections]
            detections.append((boxes[kept], scores[kept], label[kept]))
        return detections
