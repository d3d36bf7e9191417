"""Region proposal network with detectron2's numerics, from torchvision's parts.

Letters: B images, A anchors per cell, R anchors of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image

from bcnet.modeling.anchors import AnchorGenerator
from bcnet.modeling.matching import BETWEEN, match_boxes
from bcnet.modeling.registry import Backbone, level_strides


class RPN(nn.Module):
    """Region proposal network: class-agnostic object proposals (Faster R-CNN, section 3.1)."""

    def __init__(
        self,
        channels: int,
        anchor_generator: AnchorGenerator,
        *,
        iou_thresholds: Sequence[float],
        batch_size_per_image: int,
        positive_fraction: float,
        box_weights: tuple[float, float, float, float],
        smooth_l1_beta: float,
        loss_weight: float,
        box_loss_weight: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_threshold: float,
        min_size: float,
    ) -> None:
        """
        Args:
            iou_thresholds: IoU below the first is background, at or above the second foreground.
            batch_size_per_image: anchors sampled for the losses, at most `positive_fraction` of them foreground.
            box_weights: of the four deltas (dx, dy, dw, dh).
            smooth_l1_beta: error at which the box loss changes from squared to linear; 0 is L1.
            loss_weight: of both losses; `box_loss_weight` multiplies the box loss further.
            pre_nms_topk, post_nms_topk: maximum number of proposals per level before NMS and per image after it,
                each for training and inference.
            nms_threshold: IoU of two proposals of one level above which the one with the lower score is dropped.
            min_size: proposals with a side of at most this many pixels are dropped.
        """
        super().__init__()
        self.head = RPNHead(channels, anchor_generator.num_anchors)
        self.anchor_generator = anchor_generator
        self.matcher = Matcher(iou_thresholds[1], iou_thresholds[0], allow_low_quality_matches=True)
        self.sampler = BalancedPositiveNegativeSampler(batch_size_per_image, positive_fraction)
        self.box_coder = BoxCoder(box_weights)
        self.batch_size_per_image = batch_size_per_image
        self.smooth_l1_beta = smooth_l1_beta
        self.loss_weight = loss_weight
        self.box_loss_weight = box_loss_weight
        self.pre_nms_topk = pre_nms_topk
        self.post_nms_topk = post_nms_topk
        self.nms_threshold = nms_threshold
        self.min_size = min_size

    @classmethod
    def from_config(cls, cfg, backbone: Backbone) -> RPN:
        """Reads MODEL.RPN, MODEL.ANCHOR_GENERATOR and MODEL.PROPOSAL_GENERATOR.

        Raises:
            ValueError: IN_FEATURES names a level that the backbone does not have, or the anchors do not fit the levels.
        """
        rpn, anchors = cfg.MODEL.RPN, cfg.MODEL.ANCHOR_GENERATOR
        generator = AnchorGenerator(
            anchors.SIZES,
            anchors.ASPECT_RATIOS,
            level_strides(backbone, rpn.IN_FEATURES, "MODEL.RPN.IN_FEATURES"),
            offset=anchors.OFFSET,
        )
        return cls(
            backbone.out_channels,
            generator,
            iou_thresholds=rpn.IOU_THRESHOLDS,
            batch_size_per_image=rpn.BATCH_SIZE_PER_IMAGE,
            positive_fraction=rpn.POSITIVE_FRACTION,
            box_weights=rpn.BBOX_REG_WEIGHTS,
            smooth_l1_beta=rpn.SMOOTH_L1_BETA,
            loss_weight=rpn.LOSS_WEIGHT,
            box_loss_weight=rpn.BBOX_REG_LOSS_WEIGHT,
            pre_nms_topk=(rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            post_nms_topk=(rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            nms_threshold=rpn.NMS_THRESH,
            min_size=cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
        )

    def forward(
        self, features: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]], gt_boxes: Sequence[Tensor] | None
    ) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """
        Args:
            features: per level, float [B, C, H_l, W_l].
            image_sizes: (height, width) before padding.
            gt_boxes: per image float32 [G, 4] in training, None in inference.

        Returns:
            Proposals per image by descending score (float32 [P, 4], xyxy in absolute pixels, clipped), their
            logits [P], and the losses "loss_rpn_cls" and "loss_rpn_loc" (empty in inference).
        """
        anchors = self.anchor_generator(features)
        logits, deltas = self.head(list(features))
        logits = [x.float().permute(0, 2, 3, 1).flatten(1) for x in logits]  # [B, H * W * A]
        deltas = [_anchors_last(x.float()) for x in deltas]  # [B, H * W * A, 4]
        losses = {} if gt_boxes is None else self.losses(anchors, logits, deltas, gt_boxes)
        proposals, scores = self.propose(anchors, logits, deltas, image_sizes)
        return proposals, scores, losses

    @torch.no_grad()
    def propose(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Top-k per level, decoding, clipping, NMS per level, then top-k per image; P may be 0."""
        pre_nms_topk = self.pre_nms_topk[0 if self.training else 1]
        post_nms_topk = self.post_nms_topk[0 if self.training else 1]
        boxes, scores, levels = [], [], []
        for level, (level_anchors, level_logits, level_deltas) in enumerate(zip(anchors, logits, deltas, strict=True)):
            best_logits, best = level_logits.topk(min(pre_nms_topk, level_logits.shape[1]), dim=1)
            best_deltas = level_deltas.gather(1, best[..., None].expand(-1, -1, 4))
            decoded = self.box_coder.decode_single(best_deltas.flatten(0, 1), level_anchors[best].flatten(0, 1))
            boxes.append(decoded.view(*best.shape, 4))
            scores.append(best_logits)
            levels.append(torch.full_like(best, level))
        all_boxes, all_scores, all_levels = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1)

        proposals, proposal_logits = [], []
        for image_boxes, image_scores, image_levels, size in zip(
            all_boxes, all_scores, all_levels, image_sizes, strict=True
        ):
            image_boxes = clip_boxes_to_image(image_boxes, size)
            sides = image_boxes[:, 2:] - image_boxes[:, :2]
            large = torch.nonzero((sides > self.min_size).all(dim=1))[:, 0]
            image_boxes, image_scores, image_levels = image_boxes[large], image_scores[large], image_levels[large]
            kept = batched_nms(image_boxes, image_scores, image_levels, self.nms_threshold)[:post_nms_topk]
            proposals.append(image_boxes[kept])
            proposal_logits.append(image_scores[kept])
        return proposals, proposal_logits

    def losses(
        self,
        anchors: list[Tensor],
        logits: list[Tensor],
        deltas: list[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Objectness BCE and smooth L1 over the sampled anchors, divided by batch_size_per_image * B."""
        all_anchors, all_logits, all_deltas = torch.cat(anchors), torch.cat(logits, 1), torch.cat(deltas, 1)
        matched = torch.stack([match_boxes(self.matcher, boxes, all_anchors) for boxes in gt_boxes])  # [B, R]
        labels = torch.where(matched >= 0, 1.0, torch.where(matched == BETWEEN, -1.0, 0.0))
        positive, negative = (torch.stack(masks).bool() for masks in self.sampler(list(labels)))
        targets = torch.stack(
            [
                self.box_coder.encode_single(boxes[index.clamp(min=0)], all_anchors)
                if len(boxes)
                else torch.zeros_like(all_anchors)
                for boxes, index in zip(gt_boxes, matched, strict=True)
            ]
        )
        sampled = positive | negative
        loss_cls = F.binary_cross_entropy_with_logits(all_logits[sampled], labels[sampled], reduction="sum")
        loss_loc = smooth_l1(all_deltas[positive], targets[positive], self.smooth_l1_beta)
        normaliser = self.batch_size_per_image * len(gt_boxes)
        return {
            "loss_rpn_cls": self.loss_weight * loss_cls / normaliser,
            "loss_rpn_loc": self.loss_weight * self.box_loss_weight * loss_loc / normaliser,
        }


def smooth_l1(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Summed smooth L1, which is L1 for beta = 0."""
    return F.smooth_l1_loss(predicted, target, reduction="sum", beta=beta)


def _anchors_last(deltas: Tensor) -> Tensor:
    """[B, A * 4, H, W] to [B, H * W * A, 4]."""
    batch, channels, height, width = deltas.shape
    return deltas.view(batch, channels // 4, 4, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4)
