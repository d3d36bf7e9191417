"""FCOS with a mask head as a detectron2 meta-architecture.

Letters: B images, N RoIs, C channels, S pooled side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, GeneralizedRCNN, build_backbone
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import build_mask_head
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from bcnet.detectron2.checkpoint import refuse_other_names
from bcnet.detectron2.keys import require_bcnet_keys
from bcnet.detectron2.shapes import shape_value
from bcnet.fcos import FCOSHead
from bcnet.modeling.fcos import FCOSDetection, build_fcos_head
from bcnet.modeling.mask_branch import MaskRoIs


@META_ARCH_REGISTRY.register()
class BCNetFCOS(nn.Module):
    """bcnet's FCOS on a detectron2 backbone, with any mask head of detectron2's registry.

    Head, targets, losses and decoding are those of `bcnet.fcos`. The mask head is trained on the detections and the
    ground-truth boxes that overlap an object (`FCOSDetection.mask_rois`).
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: FCOSHead,
        detection: FCOSDetection,
        in_features: Sequence[str],
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "BGR",
    ) -> None:
        """
        Args:
            detection: built for the strides of `in_features`.
            in_features: names of the backbone's levels for detection and mask pooling, fine to coarse.
            mask_pooler, mask_head: None detects boxes only.
            pixel_mean, pixel_std: per channel, 0..255, in the order of `input_format`.
        """
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.detection = detection
        self.in_features = list(in_features)
        self.mask_pooler = mask_pooler
        self.mask_head = mask_head
        self.mask_on = mask_head is not None
        self.input_format = input_format
        self.register_load_state_dict_pre_hook(_refuse_other_names)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg) -> dict:
        require_bcnet_keys(cfg)
        backbone = build_backbone(cfg)
        in_features = cfg.MODEL.FCOS.IN_FEATURES
        shapes = [backbone.output_shape()[name] for name in in_features]
        channels, strides = shape_value(shapes[0], "channels"), [shape_value(shape, "stride") for shape in shapes]
        keywords = {
            "backbone": backbone,
            "head": build_fcos_head(cfg, channels),
            "detection": FCOSDetection.from_config(cfg, strides),
            "in_features": in_features,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
        }
        if cfg.MODEL.MASK_ON:
            mask = cfg.MODEL.ROI_MASK_HEAD
            side = mask.POOLER_RESOLUTION
            keywords["mask_pooler"] = ROIPooler(
                output_size=side,
                scales=[1 / stride for stride in strides],
                sampling_ratio=mask.POOLER_SAMPLING_RATIO,
                pooler_type=mask.POOLER_TYPE,
            )
            keywords["mask_head"] = build_mask_head(cfg, ShapeSpec(channels=channels, height=side, width=side))
        return keywords

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: Sequence[dict]) -> dict[str, Tensor] | list[dict] | list[Instances]:
        """`GeneralizedRCNN.forward`'s inputs and outputs.

        In training every input has "instances" with ``gt_boxes`` and ``gt_classes``, and for masks ``gt_masks``
        and, with the bilayer head, ``gt_occluder_masks``.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        ground_truth = [x["instances"].to(self.device) for x in batched_inputs]
        gt_boxes = [gt.gt_boxes.tensor for gt in ground_truth]
        levels = self._levels(images)
        output, points = self.head(levels), self.detection.points(levels)
        losses = self.detection.losses(output, points, gt_boxes, [gt.gt_classes for gt in ground_truth])
        if self.mask_on:
            rois = self.detection.mask_rois(output, points, images.image_sizes, gt_boxes)
            proposals = [_proposals(r, gt) for r, gt in zip(rois, ground_truth, strict=True)]
            losses.update(self._run_mask_head(levels, [p.proposal_boxes for p in proposals], proposals))
        return losses

    @torch.no_grad()
    def inference(
        self,
        batched_inputs: Sequence[dict],
        detected_instances: Sequence[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict] | list[Instances]:
        """As `GeneralizedRCNN.inference`: detections, or masks for given detections."""
        images = self.preprocess_image(batched_inputs)
        levels = self._levels(images)
        if detected_instances is None:
            detections = self.detection.detect(self.head(levels), self.detection.points(levels), images.image_sizes)
            results = [
                Instances(size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
                for size, (boxes, scores, classes) in zip(images.image_sizes, detections, strict=True)
            ]
        else:
            results = [instances.to(self.device) for instances in detected_instances]
        if self.mask_on:
            results = self._run_mask_head(levels, [r.pred_boxes for r in results], results)
        if do_postprocess:
            return GeneralizedRCNN._postprocess(results, batched_inputs, images.image_sizes)
        return results

    def preprocess_image(self, batched_inputs: Sequence[dict]) -> ImageList:
        """Normalises, pads and batches the images."""
        images = [(x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs]
        return ImageList.from_tensors(
            images, self.backbone.size_divisibility, padding_constraints=self.backbone.padding_constraints
        )

    def _run_mask_head(self, levels: list[Tensor], boxes: list[Boxes], instances: list[Instances]):
        assert self.mask_pooler is not None and self.mask_head is not None  # where mask_on
        return self.mask_head(self.mask_pooler(levels, boxes), instances)

    def _levels(self, images: ImageList) -> list[Tensor]:
        features = self.backbone(images.tensor)
        return [features[name] for name in self.in_features]


def _refuse_other_names(_module: nn.Module, state: dict[str, Tensor], *_: object) -> None:
    refuse_other_names(state)


def _proposals(rois: MaskRoIs, ground_truth: Instances) -> Instances:
    """RoIs with the ground truth of their matched objects, the input of detectron2's mask heads."""
    proposals = ground_truth[rois.instances]  # pyright: ignore[reportArgumentType]  # takes indices too, unlike its annotation
    proposals.proposal_boxes = Boxes(rois.boxes)
    return proposals
