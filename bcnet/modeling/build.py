"""From config to model: the one place where config keys meet constructors."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

from bcnet.bilayer import BilayerMaskHead, PlainMaskHead
from bcnet.fcos import FCOSHead
from bcnet.maps import PUBLISHED_MAPS
from bcnet.modeling.anchors import AnchorGenerator
from bcnet.modeling.backbone import ResNetFPN, build_resnet
from bcnet.modeling.box_branch import BoxBranch, BoxHead
from bcnet.modeling.detector import Detector
from bcnet.modeling.faster_rcnn import FasterRCNN
from bcnet.modeling.fcos import FCOS, FCOSDetection
from bcnet.modeling.mask_branch import MaskBranch
from bcnet.modeling.pooler import RoIPooler
from bcnet.modeling.rpn import RPN

logger = logging.getLogger(__name__)


def build_model(cfg) -> Detector:
    """The detector that a config describes, freshly initialised, on MODEL.DEVICE (the CPU without a GPU).

    Weights of convolutions lie channels last, and feature maps follow them: the layout that the fast kernels of
    both GPUs and CPUs compute in. Shapes and results are those of any layout.
    """
    builder = {"GeneralizedRCNN": build_faster_rcnn, "BCNetFCOS": build_fcos}[cfg.MODEL.META_ARCHITECTURE]
    model = builder(cfg)
    if cfg.MODEL.FREEZE_DETECTOR:
        model.freeze_detector()
    model.to(resolve_device(cfg.MODEL.DEVICE), memory_format=torch.channels_last)
    if cfg.MODEL.COMPILE:
        model.compile()
    return model


def resolve_device(name: str) -> torch.device:
    """The device of that name; the CPU, with a warning, where CUDA is asked for and there is none."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("MODEL.DEVICE is %r and there is no CUDA device: using the CPU", name)
        return torch.device("cpu")
    return torch.device(name)


def build_backbone(cfg) -> ResNetFPN:
    resnets = cfg.MODEL.RESNETS
    resnet = build_resnet(
        resnets.DEPTH,
        norm=resnets.NORM,
        groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    return ResNetFPN(resnet, in_features=cfg.MODEL.FPN.IN_FEATURES, out_channels=cfg.MODEL.FPN.OUT_CHANNELS)


def build_mask_head(cfg, in_channels: int) -> nn.Module:
    """The head that MODEL.ROI_MASK_HEAD.NAME names.

    Raises:
        ValueError: the bilayer head with CONV_DIM other than the pooled features' channels.
    """
    mask = cfg.MODEL.ROI_MASK_HEAD
    if mask.NAME == "BilayerMaskHead":
        return BilayerMaskHead(
            in_channels, **bilayer_keywords(cfg, in_channels), loss_weights=build_mask_loss(cfg)["loss_weights"]
        )
    return PlainMaskHead(
        in_channels,
        mask.CONV_DIM,
        num_conv=mask.NUM_CONV,
        num_mask_classes=num_mask_classes(cfg),
        loss_weights=build_mask_loss(cfg)["loss_weights"],
    )


def num_mask_classes(cfg) -> int:
    """Mask classes of the head: 1 for class-agnostic masks."""
    return 1 if cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES


def bilayer_keywords(cfg, in_channels: int) -> dict:
    """Keywords of `BilayerMaskHead` beside its channels.

    Raises:
        ValueError: CONV_DIM other than the pooled features' channels.
    """
    mask, bilayer = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.BILAYER
    if mask.CONV_DIM != in_channels:
        raise ValueError(
            f"the bilayer head adds its layers to the pooled features: MODEL.ROI_MASK_HEAD.CONV_DIM must be "
            f"{in_channels} like MODEL.FPN.OUT_CHANNELS, got {mask.CONV_DIM}"
        )
    return {
        "num_conv": mask.NUM_CONV,
        "num_mask_classes": num_mask_classes(cfg),
        "use_gcn": bilayer.GCN,
        "use_boundary": bilayer.BOUNDARY,
        "gcn_norm": bilayer.GCN_NORM,
        "freeze_gcn_norm": bilayer.FREEZE_GCN_NORM,
    }


def build_mask_loss(cfg) -> dict:
    """Keywords of `mask_losses`, as `MaskBranch` takes them."""
    weight = cfg.MODEL.BILAYER.LOSS_WEIGHT
    return {
        "loss_weights": {spec.name: weight[spec.name.upper()] for spec in PUBLISHED_MAPS},
        "negative_ratio": cfg.MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO,
    }


def build_mask_branch(cfg, backbone: ResNetFPN, features: Sequence[str]) -> MaskBranch | None:
    if not cfg.MODEL.MASK_ON:
        return None
    mask = cfg.MODEL.ROI_MASK_HEAD
    pooler = RoIPooler(
        mask.POOLER_RESOLUTION, [backbone.strides[name] for name in features], mask.POOLER_SAMPLING_RATIO
    )
    return MaskBranch(
        pooler,
        build_mask_head(cfg, backbone.out_channels),
        negative_ratio=cfg.MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO,
    )


def _build_shared(cfg, mask_features: Sequence[str]) -> dict:
    """Keywords of `Detector`."""
    backbone = build_backbone(cfg)
    return {
        "backbone": backbone,
        "mask_branch": build_mask_branch(cfg, backbone, mask_features),
        "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        "mask_features": mask_features,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
    }


def build_fcos_head(cfg, channels: int) -> FCOSHead:
    fcos = cfg.MODEL.FCOS
    return FCOSHead(
        channels,
        cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        num_levels=len(fcos.IN_FEATURES),
        num_conv=fcos.NUM_CONVS,
        norm_groups=fcos.NORM_GROUPS,
        prior_prob=fcos.PRIOR_PROB,
    )


def build_fcos_detection(cfg, strides: Sequence[int]) -> FCOSDetection:
    fcos = cfg.MODEL.FCOS
    return FCOSDetection(
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
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
        mask_iou_threshold=cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0],
    )


def build_fcos(cfg) -> FCOS:
    features = cfg.MODEL.FCOS.IN_FEATURES
    shared = _build_shared(cfg, features)
    backbone = shared["backbone"]
    return FCOS(
        head=build_fcos_head(cfg, backbone.out_channels),
        fcos_features=features,
        detection=build_fcos_detection(cfg, [backbone.strides[name] for name in features]),
        **shared,
    )


def build_rpn(cfg, backbone: ResNetFPN) -> RPN:
    rpn, anchors = cfg.MODEL.RPN, cfg.MODEL.ANCHOR_GENERATOR
    generator = AnchorGenerator(
        anchors.SIZES,
        anchors.ASPECT_RATIOS,
        [backbone.strides[name] for name in rpn.IN_FEATURES],
        offset=anchors.OFFSET,
    )
    return RPN(
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


def build_box_branch(cfg, backbone: ResNetFPN) -> BoxBranch:
    heads, box = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
    side = box.POOLER_RESOLUTION
    return BoxBranch(
        RoIPooler(side, [backbone.strides[name] for name in heads.IN_FEATURES], box.POOLER_SAMPLING_RATIO),
        BoxHead(
            backbone.out_channels * side**2,
            heads.NUM_CLASSES,
            num_fc=box.NUM_FC,
            fc_dim=box.FC_DIM,
            class_agnostic=box.CLS_AGNOSTIC_BBOX_REG,
        ),
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
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
    )


def build_faster_rcnn(cfg) -> FasterRCNN:
    shared = _build_shared(cfg, cfg.MODEL.ROI_HEADS.IN_FEATURES)
    return FasterRCNN(
        rpn=build_rpn(cfg, shared["backbone"]),
        rpn_features=cfg.MODEL.RPN.IN_FEATURES,
        box_branch=build_box_branch(cfg, shared["backbone"]),
        **shared,
    )
