"""Box-prompted model: backbone, feature pyramid and mask branch without a detector; masks in boxes that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from bcnet.modeling.checkpoint_adapter import DETECTRON2, MASK_HEAD, CheckpointAdapter
from bcnet.modeling.detector import Detector
from bcnet.modeling.mask_branch import MaskBranch, MaskRoIs
from bcnet.modeling.mask_heads import build_mask_branch
from bcnet.modeling.registry import DETECTOR_REGISTRY, Backbone, build_backbone, level_strides
from bcnet.modeling.thresholds import Thresholds
from bcnet.structures import Targets

NO_DETECTOR = (
    "this model has no detector (MODEL.META_ARCHITECTURE is 'BoxPrompted'): give it boxes, with "
    "model.segment(image, boxes) or bcnet segment; of the packaged models 'lite-detector' has one"
)


class BoxPromptedAdapter(CheckpointAdapter):
    """detectron2 has no such model: the mask head has the place that it has in a Mask R-CNN."""

    def mask_head(self, dialect: str) -> str | None:
        return "roi_heads.mask_head." if dialect == DETECTRON2 else MASK_HEAD


@DETECTOR_REGISTRY.register()
class BoxPrompted(Detector):
    """Predicts masks in given boxes (`inference_masks`), and is trained on ground-truth boxes.

    MODEL.ROI_MASK_HEAD.BOX_JITTER moves the boxes in training, so that masks do not depend on exact ones.
    """

    detects = False
    checkpoint_adapter = BoxPromptedAdapter()

    def __init__(
        self,
        *,
        backbone: Backbone,
        mask_branch: MaskBranch,
        mask_features: Sequence[str],
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        max_rois: int = 512,
    ) -> None:
        """
        Args:
            max_rois: of an image with more objects, so many drawn ones are trained on.
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
        self.max_rois = max_rois

    @classmethod
    def from_config(cls, cfg) -> BoxPrompted:
        """Reads MODEL; of ROI_HEADS the levels (IN_FEATURES), classes and RoIs per image (BATCH_SIZE_PER_IMAGE).

        Raises:
            ValueError: MODEL.MASK_ON is False; a name that is not registered, a level that the backbone lacks, or
                values that a component rejects.
        """
        backbone = build_backbone(cfg)
        heads = cfg.MODEL.ROI_HEADS
        strides = level_strides(backbone, heads.IN_FEATURES, "MODEL.ROI_HEADS.IN_FEATURES")
        mask_branch = build_mask_branch(cfg, backbone.out_channels, strides)
        if mask_branch is None:
            raise ValueError("MODEL.META_ARCHITECTURE is 'BoxPrompted' and MODEL.MASK_ON False: nothing is left of it")
        return cls(
            backbone=backbone,
            mask_branch=mask_branch,
            mask_features=heads.IN_FEATURES,
            num_classes=heads.NUM_CLASSES,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            max_rois=heads.BATCH_SIZE_PER_IMAGE,
        )

    def detection_losses(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]
    ) -> tuple[dict[str, Tensor], list[MaskRoIs]]:
        rois = []
        for target in targets:
            instances = torch.arange(len(target), device=target.boxes.device)
            rois.append(MaskRoIs(target.boxes, instances).sampled(self.max_rois))
        return {}, rois

    def detect(
        self,
        features: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        thresholds: Thresholds | None = None,
    ) -> NoReturn:
        raise ValueError(NO_DETECTOR)
