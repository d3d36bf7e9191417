"""bcnet's and torchvision's detectors with equal settings and equal weights in their common layers."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS as TorchvisionFCOS
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from bcnet.checkpoint import to_bcnet
from bcnet.checkpoint.load import match_weights
from bcnet.config import CfgNode, load_config
from bcnet.modeling import Detector, build_model
from bcnet.modeling.mask_heads import adopt_plain_head
from benchmarks.settings import BenchmarkSettings

SAMPLED_PER_IMAGE = 4  # sampled proposals of the box branch per foreground proposal
CANDIDATES_PER_DETECTION = 10  # candidates above the score threshold per detection

# Settings of torchvision's models, applied to ours too, so that both do the same work outside the mask head.
_PEER_SETTINGS = [
    *("INPUT.FORMAT", "RGB"),
    *("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53]),
    *("MODEL.PIXEL_STD", [58.395, 57.12, 57.375]),
    *("MODEL.RESNETS.STRIDE_IN_1X1", False),
    *("MODEL.RESNETS.NORM", "FrozenBN"),
    *("MODEL.BACKBONE.FREEZE_AT", 2),
    *("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
    *("MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 2),
    *("SOLVER.OPTIMIZER", "SGD"),
    *("MODEL.WEIGHTS", ""),
]
_SMALL = [
    *("MODEL.RESNETS.DEPTH", 18),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    *("MODEL.FPN.OUT_CHANNELS", 32),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", 32),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 64),
]


def equal_config(settings: BenchmarkSettings, config: str, *overrides: object) -> CfgNode:
    """Our config with torchvision's settings: stride in the 3x3 convolutions, two RoIAlign samples per bin."""
    size = ["MODEL.DEVICE", settings.device, "TEST.DETECTIONS_PER_IMAGE", settings.detections]
    sampled = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", SAMPLED_PER_IMAGE * settings.instances]
    proposals: list[object] = []
    for mode in ("TRAIN", "TEST"):
        proposals += [f"MODEL.RPN.POST_NMS_TOPK_{mode}", settings.proposals]
    small = _SMALL if settings.quick else []
    return load_config(config, [*_PEER_SETTINGS, *size, *proposals, *sampled, *small, *overrides])


def build_ours(cfg: CfgNode, peer: nn.Module, seed: int = 0) -> Detector:
    """Our detector, with the peer's weights in all common layers."""
    torch.manual_seed(seed)
    model = build_model(cfg)
    own = model.state_dict()
    conversion = to_bcnet(peer.state_dict(), num_classes=model.num_classes)
    adopt_plain_head(conversion, own)
    report = match_weights(model, conversion, source="torchvision")
    if not any(key.startswith("backbone.fpn.") for key in report.loaded):
        raise RuntimeError("torchvision's weights do not match our detector")
    model.load_state_dict({key: conversion.state[key] for key in report.loaded}, strict=False)
    return model


def build_mask_rcnn(
    cfg: CfgNode, seed: int = 0, memory_format: torch.memory_format = torch.contiguous_format
) -> MaskRCNN:
    """torchvision's `maskrcnn_resnet50_fpn` with random weights and the config's depth and widths.

    Built from its parts as with pretrained weights: frozen BatchNorm, stem and first stage. Without pretrained weights,
    `maskrcnn_resnet50_fpn` trains all layers and uses ordinary BatchNorm.
    """
    torch.manual_seed(seed)
    outputs = cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1
    channels, mask, box = cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.ROI_BOX_HEAD
    model = MaskRCNN(
        _backbone(cfg, first_stage=1, extra_blocks=LastLevelMaxPool()),
        box_head=TwoMLPHead(channels * box.POOLER_RESOLUTION**2, box.FC_DIM),
        box_predictor=FastRCNNPredictor(box.FC_DIM, outputs),
        mask_head=MaskRCNNHeads(channels, (mask.CONV_DIM,) * mask.NUM_CONV, 1),
        mask_predictor=MaskRCNNPredictor(mask.CONV_DIM, mask.CONV_DIM, outputs),
        rpn_pre_nms_top_n_train=cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN,
        rpn_pre_nms_top_n_test=cfg.MODEL.RPN.PRE_NMS_TOPK_TEST,
        rpn_post_nms_top_n_train=cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN,
        rpn_post_nms_top_n_test=cfg.MODEL.RPN.POST_NMS_TOPK_TEST,
        box_batch_size_per_image=cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE,
        box_detections_per_img=cfg.TEST.DETECTIONS_PER_IMAGE,
    )
    _disable_resize(model)
    # Increase the variance of untrained predictors' scores, so that a threshold selects candidates everywhere.
    nn.init.normal_(model.get_parameter("roi_heads.box_predictor.cls_score.weight"), std=0.2)
    nn.init.normal_(model.get_parameter("rpn.head.cls_logits.weight"), std=0.05)
    return model.to(cfg.MODEL.DEVICE).to(memory_format=memory_format)


def build_torchvision_fcos(
    cfg: CfgNode, seed: int = 0, memory_format: torch.memory_format = torch.contiguous_format
) -> TorchvisionFCOS:
    """torchvision's `fcos_resnet50_fpn` with random weights, built like `build_mask_rcnn`."""
    torch.manual_seed(seed)
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    backbone = _backbone(cfg, first_stage=2, extra_blocks=LastLevelP6P7(channels, channels))
    model = TorchvisionFCOS(
        backbone, cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1, detections_per_img=cfg.TEST.DETECTIONS_PER_IMAGE
    )
    _disable_resize(model)
    nn.init.normal_(model.get_parameter("head.classification_head.cls_logits.weight"), std=0.03)
    # In units of the stride; with the untrained bias most boxes are empty.
    nn.init.constant_(model.get_parameter("head.regression_head.bbox_reg.bias"), 2.0)
    return model.to(cfg.MODEL.DEVICE).to(memory_format=memory_format)


def box_score_threshold(peer: MaskRCNN, images: list[Tensor], count: int) -> float:
    """The class probability exceeded by `count` candidates per image, on average."""
    logits: list[Tensor] = []
    predictor = peer.get_submodule("roi_heads.box_predictor")
    handle = predictor.register_forward_hook(lambda _module, _args, output: logits.append(output[0]))
    _run(peer, images)
    handle.remove()
    return _threshold(logits[0].float().softmax(dim=1)[:, 1:], count * len(images))


def fcos_score_thresholds(peer: TorchvisionFCOS, images: list[Tensor], count: int) -> tuple[float, float]:
    """Like `box_score_threshold`: for torchvision on the score, and for ours on the class probability."""
    outputs: list[dict[str, Tensor]] = []
    handle = peer.head.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    _run(peer, images)
    handle.remove()
    probability, centerness = (outputs[0][name].float().sigmoid() for name in ("cls_logits", "bbox_ctrness"))
    count *= len(images)
    return _threshold((probability * centerness).sqrt(), count), _threshold(probability, count)


def _run(model: nn.Module, images: list[Tensor]) -> None:
    was_training = model.training
    model.eval()
    with torch.no_grad():
        model(images)
    model.train(was_training)


def _threshold(scores: Tensor, count: int) -> float:
    scores = scores.flatten()
    if not torch.isfinite(scores).all():
        raise RuntimeError("the random detector's scores are not finite")
    return float(scores.topk(min(count + 1, len(scores))).values[-1])


def _backbone(cfg: CfgNode, first_stage: int, extra_blocks: ExtraFPNBlock) -> nn.Module:
    """torchvision's `resnet_fpn_backbone` with three trainable stages and configurable width."""
    resnets = cfg.MODEL.RESNETS
    name = f"resnet{resnets.DEPTH}" if resnets.NUM_GROUPS == 1 else "resnext101_32x8d"
    body = torchvision.models.get_model(name, weights=None, norm_layer=FrozenBatchNorm2d)
    for module in (body.conv1, body.layer1):
        module.requires_grad_(False)
    for module in body.modules():
        # A frozen BatchNorm with initial values does not normalise, so every block would double the variance.
        if isinstance(module, (BasicBlock, Bottleneck)):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
            last.get_buffer("weight").fill_(0.2)
    stages = range(first_stage, 5)
    return BackboneWithFPN(
        body,
        {f"layer{stage}": str(level) for level, stage in enumerate(stages)},
        [body.inplanes // 2 ** (4 - stage) for stage in stages],
        cfg.MODEL.FPN.OUT_CHANNELS,
        extra_blocks=extra_blocks,
    )


def _disable_resize(model: nn.Module) -> None:
    """Disables the resize of torchvision's model: images, boxes and masks already have the final size."""
    set_attribute(model.get_submodule("transform"), "resize", lambda image, target=None: (image, target))


def set_attribute(module: nn.Module, name: str, value: object) -> None:
    """Replaces an attribute or method of a torchvision module, which the type `nn.Module` does not declare."""
    setattr(module, name, value)
