"""Descriptions for ``bcnet info``: configs and weights files."""

from __future__ import annotations

import os

import torch

from bcnet.checkpoint import local_path, read_checkpoint, weights_of
from bcnet.checkpoint.names import DESCRIPTIONS, UnknownNamesError, recognise
from bcnet.config import load_config
from bcnet.modeling import BACKBONE_REGISTRY, ResNetFPN, build_model

HEADS = {"BilayerMaskHead": "bilayer", "MaskRCNNConvUpsampleHead": "plain", "PlainMaskHead": "plain"}
DETECTORS = {"GeneralizedRCNN": "Faster R-CNN", "BCNetFCOS": "FCOS"}


def describe(name: str) -> dict:
    """Describes a file: a config by its suffix, otherwise weights.

    Args:
        name: path of a YAML file or name of a packaged config; or path or URL of weights.

    Raises:
        FileNotFoundError, KeyError, ValueError: as `load_config` or `read_checkpoint`.
    """
    return describe_config(load_config(name)) if name.endswith((".yaml", ".yml")) else describe_weights(name)


def describe_config(cfg) -> dict:
    """Model, images and schedule of a config, ready for YAML."""
    model, mask = cfg.MODEL, cfg.MODEL.ROI_MASK_HEAD
    described = {
        "detector": DETECTORS.get(model.META_ARCHITECTURE, model.META_ARCHITECTURE),
        "backbone": _backbone(cfg),
        "mask head": "none",
        "classes": model.ROI_HEADS.NUM_CLASSES,
        "parameters": _count_parameters(cfg),
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


def describe_weights(source: str) -> dict:
    """Origin and content of weights, ready for YAML.

    Raises:
        FileNotFoundError, OSError, ValueError: as `local_path`, `read_checkpoint` and `weights_of`.
    """
    path = local_path(source)
    content = read_checkpoint(path)
    state = weights_of(content, source)
    try:
        names = DESCRIPTIONS[recognise(state)]
    except UnknownNamesError:
        names = "not known"
    described = {
        "file": path,
        "size": f"{os.path.getsize(path) / 2**20:.1f} MiB",
        "names of": names,
        "tensors": len(state),
        "values": sum(value.numel() for value in state.values()),
    }
    for key in ("bcnet_version", "iteration", "seed"):
        if content.get(key) is not None:
            described[key.replace("_", " ")] = content[key]
    if content.get("class_names"):
        described["class names"] = list(content["class_names"])
    described["resumable"] = "optimizer" in content
    if isinstance(content.get("config"), str):
        try:
            described["config"] = describe_config(load_config(None, text=content["config"], source="its config"))
        except (KeyError, ValueError) as error:  # config of another version
            described["config"] = f"cannot be read by this version: {error}"
    return described


def _backbone(cfg) -> str:
    name, resnets = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS
    if not issubclass(BACKBONE_REGISTRY.get(name), ResNetFPN):
        return name
    if resnets.NUM_GROUPS == 1:
        return f"ResNet-{resnets.DEPTH}-FPN"
    return f"ResNeXt-{resnets.DEPTH}-{resnets.NUM_GROUPS}x{resnets.WIDTH_PER_GROUP}d-FPN"


def _count_parameters(cfg) -> int:
    """Number of parameters of the model, which is built on the meta device."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(cfg).parameters())
