"""Descriptions of configs in words: detector, backbone, mask head, parameters, schedule."""

from __future__ import annotations

from bcnet.modeling import BACKBONE_REGISTRY, ResNetFPN
from bcnet.modeling.build import build_meta_model
from bcnet.modeling.timm_backbone import TimmFPN

HEADS = {
    "BilayerMaskHead": "bilayer",
    "SideBranchMaskHead": "plain with a side branch for occluders",
    "MaskRCNNConvUpsampleHead": "plain",
    "PlainMaskHead": "plain",
}
DETECTORS = {"GeneralizedRCNN": "Faster R-CNN", "BCNetFCOS": "FCOS", "BoxPrompted": "none, masks in given boxes"}


def describe_config(cfg) -> dict:
    """Model, images and schedule of a config, ready for YAML."""
    model, mask = cfg.MODEL, cfg.MODEL.ROI_MASK_HEAD
    described = {
        "detector": DETECTORS.get(model.META_ARCHITECTURE, model.META_ARCHITECTURE),
        "backbone": _backbone(cfg),
        "mask head": "none",
        "classes": model.ROI_HEADS.NUM_CLASSES,
        "parameters": sum(parameter.numel() for parameter in build_meta_model(cfg).parameters()),
        "initial weights": model.WEIGHTS or "none",
        "images": f"{cfg.INPUT.FORMAT}, short side {cfg.INPUT.MIN_SIZE_TEST}, long side {cfg.INPUT.MAX_SIZE_TEST}",
        "training sets": list(cfg.DATASETS.TRAIN),
        "test sets": list(cfg.DATASETS.TEST),
        "schedule": (
            f"{cfg.SOLVER.MAX_ITER} iterations of {cfg.SOLVER.IMS_PER_BATCH} images, {cfg.SOLVER.OPTIMIZER}, learning "
            f"rate {cfg.SOLVER.BASE_LR:g}"
        ),
    }
    if model.MASK_ON:
        kind = "one mask for all classes" if mask.CLS_AGNOSTIC_MASK else "a mask for each class"
        described["mask head"] = f"{HEADS.get(mask.NAME, mask.NAME)}, {kind}"
    if cfg.TEST.AUG.ENABLED:
        flip = ", mirrored too" if cfg.TEST.AUG.FLIP else ""
        described["test-time augmentation"] = f"short sides {', '.join(map(str, cfg.TEST.AUG.MIN_SIZES))}{flip}"
    return described


def _backbone(cfg) -> str:
    name, resnets = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS
    kind = BACKBONE_REGISTRY.get(name)
    if issubclass(kind, TimmFPN):
        return f"{cfg.MODEL.TIMM.NAME} (timm) with a feature pyramid"
    if not issubclass(kind, ResNetFPN):
        return name
    if resnets.NUM_GROUPS == 1:
        return f"ResNet-{resnets.DEPTH}-FPN"
    return f"ResNeXt-{resnets.DEPTH}-{resnets.NUM_GROUPS}x{resnets.WIDTH_PER_GROUP}d-FPN"
