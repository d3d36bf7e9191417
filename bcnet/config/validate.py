"""Config validation: values that would otherwise fail late or silently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bcnet.config.node import CfgNode
from bcnet.maps import BUILT_IN_MAPS

_CHOICES = {
    "VERSION": (2,),
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.RESNETS.NORM": ("FrozenBN", "BN", "SyncBN"),
    "MODEL.TIMM.NORM": ("FrozenBN", "BN", "SyncBN"),
    "MODEL.BILAYER.GCN_NORM": ("BN", "SyncBN"),
    "MODEL.BILAYER.OCCLUDER_TARGET": ("neighbours", "front"),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads",),
    "MODEL.ROI_BOX_HEAD.NAME": ("FastRCNNConvFCHead",),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "INPUT.MASK_FORMAT": ("bitmask", "polygon"),
    "INPUT.MASK_TARGET": ("visible", "amodal"),
    "INPUT.BAD_IMAGE": ("raise", "skip"),
    "INPUT.CROP.TYPE": ("relative", "relative_range", "absolute", "absolute_range"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.AMP.DTYPE": ("bf16", "fp16"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm", "full_model"),
}

# Constraints on numbers, or on every number of a list, with their error messages. Keys whose negative values have a
# meaning in detectron2 (no limit, never, a random seed) are not listed: they mean the same here.
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
        "INPUT.SCALE_JITTER.SIZE",
        "INPUT.COMPOSITION.MAX_OBJECTS",
        "TEST.AUG.MAX_SIZE",
    ),
    _NOT_NEGATIVE: (
        *(f"MODEL.BILAYER.LOSS_WEIGHT.{spec.name.upper()}" for spec in BUILT_IN_MAPS),
        "MODEL.FCOS.MASK_ROIS_PER_IMAGE",
        "INPUT.MIN_SIZE_TRAIN",
        "INPUT.MIN_SIZE_TEST",
        "INPUT.COMPOSITION.FEATHER",
        "INPUT.COMPOSITION.CACHE_MB",
        "INPUT.COLOR_JITTER.BRIGHTNESS",
        "INPUT.COLOR_JITTER.CONTRAST",
        "INPUT.COLOR_JITTER.SATURATION",
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
        "INPUT.CROP.SIZE",
        "INPUT.SCALE_JITTER.MIN_SCALE",
        "INPUT.COMPOSITION.SCALE",
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
        "MODEL.TIMM.DROP_PATH",
        "INPUT.COMPOSITION.PROBABILITY",
        "INPUT.COMPOSITION.BEHIND",
        "INPUT.COMPOSITION.SHADOW",
        "INPUT.COMPOSITION.HIDDEN_SHARE",
        "INPUT.COMPOSITION.MIN_VISIBLE",
    ),
}
# Two numbers, the lower one first.
_RANGES = (
    "INPUT.COMPOSITION.HIDDEN_SHARE",
    "INPUT.COMPOSITION.SCALE",
    "INPUT.COLOR_JITTER.BRIGHTNESS",
    "INPUT.COLOR_JITTER.CONTRAST",
    "INPUT.COLOR_JITTER.SATURATION",
)
_LENGTHS = {
    "MODEL.PIXEL_MEAN": 3,
    "MODEL.PIXEL_STD": 3,
    "MODEL.RPN.IOU_THRESHOLDS": 2,
    "MODEL.RPN.BBOX_REG_WEIGHTS": 4,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": 1,
    "INPUT.CROP.SIZE": 2,
    "INPUT.SCALE_JITTER.SIZE": 2,
    **dict.fromkeys(_RANGES, 2),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": 4,
}
_NOT_EMPTY = {
    "INPUT.MIN_SIZE_TRAIN": "at least one short side in pixels",
    "TEST.AUG.MIN_SIZES": "at least one short side in pixels",
    "MODEL.RPN.IN_FEATURES": "the levels with anchors",
    "MODEL.ROI_HEADS.IN_FEATURES": "the levels that RoIs are pooled from",
    "MODEL.FCOS.IN_FEATURES": "the detection levels",
}


def validate_config(cfg: CfgNode) -> None:
    """Refuses values that no component accepts.

    Raises:
        ValueError: the first fault, with the key and the actual value.
    """
    for fault in _faults(cfg):
        raise ValueError(fault)


def check_values(cfg: Mapping, keys: Iterable[str]) -> None:
    """Checks the values of some keys alone, of which detectron2's config may have the rest.

    Args:
        cfg: a config of either host.
        keys: dotted keys.

    Raises:
        ValueError: the first value that is not allowed, with its key.
    """
    for key in keys:
        for fault in _value_faults(key, value_of(cfg, key)):
            raise ValueError(fault)


def value_of(cfg: Mapping, key: str) -> Any:
    """The value of a dotted key, in a config of either host."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _value_faults(key: str, value: object) -> Iterator[str]:
    """Faults of one value, whatever the others are."""
    if key in _CHOICES and value not in _CHOICES[key]:
        yield f"{key} is {value!r}; it must be one of {', '.join(map(repr, _CHOICES[key]))}"
    for requirement, keys in _NUMBERS.items():
        if key in keys and not _all_numbers(value, _TESTS[requirement]):
            yield f"{key} is {value}; {requirement}"


def _faults(cfg: CfgNode) -> Iterator[str]:
    yield from _component_faults(cfg)
    for key in _CHOICES:
        yield from _value_faults(key, cfg.get_value(key))
    for key, length in _LENGTHS.items():
        if len(cfg.get_value(key)) != length:
            yield f"{key} is {cfg.get_value(key)}; it must have {length} value{'s' * (length > 1)}"
    for key, wanted in _NOT_EMPTY.items():
        if len(cfg.get_value(key)) == 0:
            yield f"{key} is empty; give {wanted}"
    for keys in _NUMBERS.values():
        for key in keys:
            yield from _value_faults(key, cfg.get_value(key))
    for key in _RANGES:
        low, high = cfg.get_value(key)
        if low > high:
            yield f"{key} is {cfg.get_value(key)}; the lower bound comes first"
    yield from _input_contradictions(cfg.INPUT)
    yield from _contradictions(cfg)


def _component_faults(cfg: CfgNode) -> Iterator[str]:
    # Imported here: importing the models fills the registries but takes long, and `bcnet.modeling` depends on this
    # package.
    from bcnet.modeling.registry import BACKBONE_REGISTRY, DETECTOR_REGISTRY, MASK_HEAD_REGISTRY

    for registry in (DETECTOR_REGISTRY, BACKBONE_REGISTRY, MASK_HEAD_REGISTRY):
        name = cfg.get_value(registry.key)
        if name not in registry:
            yield registry.unknown(name)


def _all_numbers(value: object, test: Callable[[float], bool]) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and test(v) for v in values)


def _input_contradictions(inputs: CfgNode) -> Iterator[str]:
    """Faults of INPUT's values that do not go together."""
    if inputs.MIN_SIZE_TRAIN_SAMPLING == "range" and len(inputs.MIN_SIZE_TRAIN) != 2:
        yield (
            "INPUT.MIN_SIZE_TRAIN_SAMPLING 'range' needs two values in INPUT.MIN_SIZE_TRAIN, got "
            f"{inputs.MIN_SIZE_TRAIN}"
        )
    crop, jitter, composition = inputs.CROP, inputs.SCALE_JITTER, inputs.COMPOSITION
    if crop.TYPE.startswith("relative") and max(crop.SIZE) > 1:
        yield f"INPUT.CROP.SIZE is {crop.SIZE}; with INPUT.CROP.TYPE {crop.TYPE!r} they are shares, at most 1"
    if crop.TYPE == "absolute_range" and crop.SIZE[0] > crop.SIZE[1]:
        yield f"INPUT.CROP.SIZE is {crop.SIZE}; the lower bound comes first with INPUT.CROP.TYPE 'absolute_range'"
    if crop.TYPE.startswith("absolute") and min(crop.SIZE) < 1:
        yield f"INPUT.CROP.SIZE is {crop.SIZE}; with INPUT.CROP.TYPE {crop.TYPE!r} they are pixels, at least 1"
    if jitter.MIN_SCALE > jitter.MAX_SCALE:
        yield (
            f"INPUT.SCALE_JITTER.MIN_SCALE ({jitter.MIN_SCALE}) must not exceed INPUT.SCALE_JITTER.MAX_SCALE "
            f"({jitter.MAX_SCALE})"
        )
    if composition.HIDDEN_SHARE[1] > 1 - composition.MIN_VISIBLE:
        yield (
            f"INPUT.COMPOSITION.HIDDEN_SHARE is {composition.HIDDEN_SHARE}, but INPUT.COMPOSITION.MIN_VISIBLE "
            f"{composition.MIN_VISIBLE} drops an object of which more than {1 - composition.MIN_VISIBLE:g} is hidden"
        )


def _contradictions(cfg: CfgNode) -> Iterator[str]:
    """Contradictions between values."""
    solver, model = cfg.SOLVER, cfg.MODEL
    if cfg.TEST.DETECTIONS_PER_IMAGE == 0:
        yield "TEST.DETECTIONS_PER_IMAGE is 0; it must be at least 1, or negative for no limit"
    if not 0 <= model.ROI_MASK_HEAD.BOX_JITTER < 0.5:
        yield f"MODEL.ROI_MASK_HEAD.BOX_JITTER is {model.ROI_MASK_HEAD.BOX_JITTER}; it must lie in 0..0.5, 0.5 excluded"
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
    # Keys read by detectron2 only must match what bcnet does.
    resnets = model.RESNETS
    absent = [name for name in model.FPN.IN_FEATURES if name not in resnets.OUT_FEATURES]
    if absent:
        yield f"MODEL.RESNETS.OUT_FEATURES is {resnets.OUT_FEATURES}; MODEL.FPN.IN_FEATURES needs {', '.join(absent)}"
    channels = 64 if resnets.DEPTH < 50 else 256
    if resnets.RES2_OUT_CHANNELS != channels:
        yield (
            f"MODEL.RESNETS.RES2_OUT_CHANNELS is {resnets.RES2_OUT_CHANNELS}; a ResNet-{resnets.DEPTH} has {channels}"
        )
