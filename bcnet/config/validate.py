"""Checks of config values that would otherwise fail late or silently."""

from __future__ import annotations

from bcnet.config.config import CfgNode

_CHOICES = {
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN", "BCNetFCOS"),
    "MODEL.BACKBONE.NAME": ("build_resnet_fpn_backbone", "build_bcnet_fcos_resnet_fpn_backbone"),
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.RESNETS.NORM": ("FrozenBN", "BN", "SyncBN"),
    "MODEL.BILAYER.GCN_NORM": ("BN", "SyncBN"),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads",),
    "MODEL.ROI_BOX_HEAD.NAME": ("FastRCNNConvFCHead",),
    "MODEL.ROI_MASK_HEAD.NAME": ("BilayerMaskHead", "MaskRCNNConvUpsampleHead"),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "INPUT.MASK_TARGET": ("visible", "amodal"),
    "INPUT.BAD_IMAGE": ("raise", "skip"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.AMP.DTYPE": ("bf16", "fp16"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm", "full_model"),
}


def get_value(cfg: CfgNode, dotted_key: str):
    """The value of ``"A.B.C"``."""
    node = cfg
    for name in dotted_key.split("."):
        node = node[name]
    return node


def validate_config(cfg: CfgNode) -> None:
    """Raises ValueError naming the key and the actual value of anything that no component accepts."""
    for key, allowed in _CHOICES.items():
        value = get_value(cfg, key)
        if value not in allowed:
            raise ValueError(f"{key} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
    for key in ("SOLVER.IMS_PER_BATCH", "SOLVER.ACCUMULATE_STEPS", "MODEL.ROI_HEADS.NUM_CLASSES"):
        if get_value(cfg, key) < 1:
            raise ValueError(f"{key} is {get_value(cfg, key)}; it must be at least 1")
    if cfg.SOLVER.IMS_PER_BATCH % cfg.SOLVER.ACCUMULATE_STEPS:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH ({cfg.SOLVER.IMS_PER_BATCH}) must be divisible by "
            f"SOLVER.ACCUMULATE_STEPS ({cfg.SOLVER.ACCUMULATE_STEPS})"
        )
    if len(cfg.INPUT.MIN_SIZE_TRAIN) == 0:
        raise ValueError("INPUT.MIN_SIZE_TRAIN is empty; give at least one short side in pixels")
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(cfg.INPUT.MIN_SIZE_TRAIN) != 2:
        raise ValueError(
            f"INPUT.MIN_SIZE_TRAIN_SAMPLING 'range' needs two values in INPUT.MIN_SIZE_TRAIN, "
            f"got {cfg.INPUT.MIN_SIZE_TRAIN}"
        )
    fpn_strides = len(cfg.MODEL.FCOS.IN_FEATURES)
    if len(cfg.MODEL.FCOS.SIZES_OF_INTEREST) != fpn_strides - 1:
        raise ValueError(
            f"MODEL.FCOS.SIZES_OF_INTEREST has {len(cfg.MODEL.FCOS.SIZES_OF_INTEREST)} bounds; "
            f"{fpn_strides} levels need {fpn_strides - 1}"
        )
