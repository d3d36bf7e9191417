"""Checks of config values that would otherwise fail late or silently."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from bcnet.config.node import CfgNode

logger = logging.getLogger(__name__)

_CHOICES = {
    "VERSION": (2,),
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.RESNETS.NORM": ("FrozenBN", "BN", "SyncBN"),
    "MODEL.BILAYER.GCN_NORM": ("BN", "SyncBN"),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads",),
    "MODEL.ROI_BOX_HEAD.NAME": ("FastRCNNConvFCHead",),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "INPUT.MASK_FORMAT": ("bitmask", "polygon"),
    "INPUT.MASK_TARGET": ("visible", "amodal"),
    "INPUT.BAD_IMAGE": ("raise", "skip"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.AMP.DTYPE": ("bf16", "fp16"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm", "full_model"),
}

# What a number, or every number of a list, must satisfy, and how the error says it. Negative values that detectron2
# gives a meaning (no limit, never, a random seed) are not listed: they mean the same here.
_AT_LEAST_ONE = "it must be at least 1"
_NOT_NEGATIVE = "it must not be negative"
_POSITIVE = "it must be above 0"
_SHARE = "it must lie in 0..1"
_TESTS: dict[str, Callable[[float], bool]] = {
    _AT_LEAST_ONE: lambda value: value >= 1,
    _NOT_NEGATIVE: lambda value: value >= 0,
    _POSITIVE: lambda value: value > 0,
    _SHARE: lambda value: 0 <= value <= 1,
}
_NUMBERS: dict[str, tuple[str, ...]] = {
    _AT_LEAST_ONE: (
        "SOLVER.IMS_PER_BATCH",
        "SOLVER.ACCUMULATE_STEPS",
        "SOLVER.MAX_ITER",
        "SOLVER.LOG_PERIOD",
        "SOLVER.STEPS",
        "MODEL.ROI_HEADS.NUM_CLASSES",
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN",
        "MODEL.RPN.PRE_NMS_TOPK_TEST",
        "MODEL.RPN.POST_NMS_TOPK_TRAIN",
        "MODEL.RPN.POST_NMS_TOPK_TEST",
        "MODEL.FCOS.TOPK_CANDIDATES_TEST",
        "MODEL.ROI_BOX_HEAD.NUM_FC",
        "MODEL.ROI_BOX_HEAD.FC_DIM",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION",
        "MODEL.ROI_MASK_HEAD.CONV_DIM",
        "MODEL.FPN.OUT_CHANNELS",
        "INPUT.MAX_SIZE_TRAIN",
        "INPUT.MAX_SIZE_TEST",
        "TEST.AUG.MAX_SIZE",
    ),
    _NOT_NEGATIVE: (
        "INPUT.MIN_SIZE_TRAIN",
        "INPUT.MIN_SIZE_TEST",
        "TEST.AUG.MIN_SIZES",
        "DATALOADER.NUM_WORKERS",
        "SOLVER.CHECKPOINT_PERIOD",
        "SOLVER.CHECKPOINTS_KEPT",
        "SOLVER.WARMUP_ITERS",
        "SOLVER.WARMUP_FACTOR",
        "SOLVER.MOMENTUM",
        "SOLVER.WEIGHT_DECAY",
        "SOLVER.WEIGHT_DECAY_NORM",
        "MODEL.RPN.SMOOTH_L1_BETA",
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA",
        "MODEL.ROI_MASK_HEAD.NUM_CONV",
        "MODEL.FCOS.NUM_CONVS",
        "MODEL.FCOS.CENTER_SAMPLING_RADIUS",
    ),
    _POSITIVE: (
        "SOLVER.BASE_LR",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
        "MODEL.PIXEL_STD",
        "MODEL.RPN.BBOX_REG_WEIGHTS",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
        "MODEL.ROI_MASK_HEAD.ROI_SCALE",
        "MODEL.FCOS.SIZES_OF_INTEREST",
    ),
    _SHARE: (
        "MODEL.RPN.POSITIVE_FRACTION",
        "MODEL.RPN.IOU_THRESHOLDS",
        "MODEL.ROI_HEADS.POSITIVE_FRACTION",
        "MODEL.ROI_HEADS.IOU_THRESHOLDS",
        "SOLVER.EMA.DECAY",
    ),
}
_LENGTHS = {
    "MODEL.PIXEL_MEAN": 3,
    "MODEL.PIXEL_STD": 3,
    "MODEL.RPN.IOU_THRESHOLDS": 2,
    "MODEL.RPN.BBOX_REG_WEIGHTS": 4,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": 1,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": 4,
}
_NOT_EMPTY = {
    "INPUT.MIN_SIZE_TRAIN": "at least one short side in pixels",
    "TEST.AUG.MIN_SIZES": "at least one short side in pixels",
    "MODEL.RPN.IN_FEATURES": "the levels that carry anchors",
    "MODEL.ROI_HEADS.IN_FEATURES": "the levels that RoIs are pooled from",
    "MODEL.FCOS.IN_FEATURES": "the levels that detect",
}


def validate_config(cfg: CfgNode) -> None:
    """Checks every value that no component accepts, and logs a warning for one that has no effect.

    Raises:
        ValueError: the first fault, with the key and the actual value.
    """
    for fault in _faults(cfg):
        raise ValueError(fault)
    solver = cfg.SOLVER
    if solver.WARMUP_ITERS > solver.MAX_ITER:
        logger.warning(
            "SOLVER.WARMUP_ITERS is %d and SOLVER.MAX_ITER %d: the learning rate warms up during the whole training",
            solver.WARMUP_ITERS,
            solver.MAX_ITER,
        )


def _faults(cfg: CfgNode) -> Iterator[str]:
    yield from _component_faults(cfg)
    for key, allowed in _CHOICES.items():
        value = cfg.get_value(key)
        if value not in allowed:
            yield f"{key} is {value!r}; it must be one of {', '.join(map(repr, allowed))}"
    for key, length in _LENGTHS.items():
        if len(cfg.get_value(key)) != length:
            yield f"{key} is {cfg.get_value(key)}; it must have {length} value{'s' * (length > 1)}"
    for key, wanted in _NOT_EMPTY.items():
        if len(cfg.get_value(key)) == 0:
            yield f"{key} is empty; give {wanted}"
    for requirement, keys in _NUMBERS.items():
        for key in keys:
            if not _all_numbers(cfg.get_value(key), _TESTS[requirement]):
                yield f"{key} is {cfg.get_value(key)}; {requirement}"
    yield from _contradictions(cfg)


def _component_faults(cfg: CfgNode) -> Iterator[str]:
    # Imported here: the registries fill when torch and the models are imported, which reading a default need not wait
    # for, and `bcnet.modeling` lies above this package.
    from bcnet.modeling.registry import BACKBONE_REGISTRY, DETECTOR_REGISTRY, MASK_HEAD_REGISTRY

    for registry in (DETECTOR_REGISTRY, BACKBONE_REGISTRY, MASK_HEAD_REGISTRY):
        name = cfg.get_value(registry.key)
        if name not in registry:
            yield registry.unknown(name)


def _all_numbers(value: object, test: Callable[[float], bool]) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and test(v) for v in values)


def _contradictions(cfg: CfgNode) -> Iterator[str]:
    """Faults of values that do not go together."""
    solver, model = cfg.SOLVER, cfg.MODEL
    if cfg.TEST.DETECTIONS_PER_IMAGE == 0:
        yield "TEST.DETECTIONS_PER_IMAGE is 0; it must be at least 1, or negative for no limit"
    if not 0 <= model.ANCHOR_GENERATOR.OFFSET < 1:
        yield f"MODEL.ANCHOR_GENERATOR.OFFSET is {model.ANCHOR_GENERATOR.OFFSET}; it must lie in 0..1, 1 excluded"
    if solver.IMS_PER_BATCH % solver.ACCUMULATE_STEPS:
        yield (
            f"SOLVER.IMS_PER_BATCH ({solver.IMS_PER_BATCH}) must be divisible by "
            f"SOLVER.ACCUMULATE_STEPS ({solver.ACCUMULATE_STEPS})"
        )
    if list(solver.STEPS) != sorted(set(solver.STEPS)):
        yield f"SOLVER.STEPS is {tuple(solver.STEPS)}; the steps must ascend"
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
        yield f"SOLVER.BASE_LR_END is {solver.BASE_LR_END}; it must lie in 0..SOLVER.BASE_LR ({solver.BASE_LR})"
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(cfg.INPUT.MIN_SIZE_TRAIN) != 2:
        yield (
            "INPUT.MIN_SIZE_TRAIN_SAMPLING 'range' needs two values in INPUT.MIN_SIZE_TRAIN, got "
            f"{cfg.INPUT.MIN_SIZE_TRAIN}"
        )
    low, high = model.RPN.IOU_THRESHOLDS
    if low > high:
        yield f"MODEL.RPN.IOU_THRESHOLDS is {model.RPN.IOU_THRESHOLDS}; background ends below where foreground begins"
    levels, bounds = len(model.FCOS.IN_FEATURES), len(model.FCOS.SIZES_OF_INTEREST)
    if bounds != levels - 1:
        yield f"MODEL.FCOS.SIZES_OF_INTEREST has {bounds} bounds; {levels} levels need {levels - 1}"
    if model.BILAYER.AMODAL and cfg.INPUT.MASK_TARGET == "amodal":
        yield (
            "MODEL.BILAYER.AMODAL is True and INPUT.MASK_TARGET 'amodal'; the map comes beside the visible mask, "
            "which needs INPUT.MASK_TARGET 'visible'"
        )
    # What detectron2 alone reads must say what the engine does.
    resnets = model.RESNETS
    absent = [name for name in model.FPN.IN_FEATURES if name not in resnets.OUT_FEATURES]
    if absent:
        yield f"MODEL.RESNETS.OUT_FEATURES is {resnets.OUT_FEATURES}; MODEL.FPN.IN_FEATURES needs {', '.join(absent)}"
    channels = 64 if resnets.DEPTH < 50 else 256
    if resnets.RES2_OUT_CHANNELS != channels:
        yield (
            f"MODEL.RESNETS.RES2_OUT_CHANNELS is {resnets.RES2_OUT_CHANNELS}; a ResNet-{resnets.DEPTH} has {channels}"
        )
