"""Checks of bcnet's keys in detectron2's config: not added, without effect there, of a wrong value, or unknown."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from bcnet.config.loading import derived_from_backbone
from bcnet.config.node import unknown_key_message
from bcnet.config.validate import check_values, value_of
from bcnet.data.images import MAX_IMAGE_PIXELS
from bcnet.maps import BUILT_IN_MAPS

# Keys of bcnet without a counterpart in detectron2's trainer, with their neutral value.
_STAND_ALONE_KEYS = {
    "SOLVER.ACCUMULATE_STEPS": 1,
    "SOLVER.EMA.ENABLED": False,
    "INPUT.BAD_IMAGE": "raise",
    "INPUT.MAX_IMAGE_PIXELS": MAX_IMAGE_PIXELS,
    "MODEL.COMPILE": False,
    "MODEL.ROI_MASK_HEAD.BOX_JITTER": 0.0,
}
_TRAINER_VALUES = ("SOLVER.OPTIMIZER", "SOLVER.AMP.DTYPE", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE")
_HEAD_VALUES = (
    "MODEL.BILAYER.GCN_NORM",
    "MODEL.BILAYER.OCCLUDER_TARGET",
    *(f"MODEL.BILAYER.LOSS_WEIGHT.{spec.name.upper()}" for spec in BUILT_IN_MAPS),
)


def require_bcnet_keys(cfg) -> None:
    """
    Raises:
        ValueError: bcnet's keys were not added to the config.
    """
    if "BILAYER" not in cfg.MODEL:
        raise ValueError(
            "the config has no MODEL.BILAYER: call bcnet.detectron2.add_bcnet_config(cfg) after get_cfg() and before "
            "files and options are merged"
        )


def check_head_keys(cfg) -> None:
    """
    Raises:
        ValueError: bcnet's keys were not added to the config, or a value of MODEL.BILAYER is not allowed.
    """
    require_bcnet_keys(cfg)
    check_values(cfg, _HEAD_VALUES)


def derive_from_backbone(cfg) -> None:
    """Sets, in place, the keys that a timm backbone derives, where they have their defaults.

    These are MODEL.PIXEL_MEAN, MODEL.PIXEL_STD and INPUT.FORMAT of timm's data config (MODEL.TIMM.DATA_CONFIG).

    Raises:
        ValueError: bcnet's keys were not added to the config, or timm has no such model.
        ImportError: timm is not installed.
    """
    require_bcnet_keys(cfg)
    cfg.merge_from_list([part for item in derived_from_backbone(cfg).items() for part in item])


def check_trainer_keys(cfg) -> None:
    """
    Raises:
        ValueError: bcnet's keys were not added to the config, a value is not allowed, or a key of bcnet is set that
            `BCNetTrainer` has no counterpart of.
    """
    require_bcnet_keys(cfg)
    check_values(cfg, _TRAINER_VALUES)
    mask = cfg.MODEL.ROI_MASK_HEAD
    if mask.BOUNDARY and mask.NAME == "MaskRCNNConvUpsampleHead":
        raise ValueError(
            "MODEL.ROI_MASK_HEAD.BOUNDARY is True, and 'MaskRCNNConvUpsampleHead' is detectron2's own head here, which "
            "has no boundary decoder: set MODEL.ROI_MASK_HEAD.NAME to 'PlainMaskHead'"
        )
    for key, neutral in _STAND_ALONE_KEYS.items():
        if value_of(cfg, key) != neutral:
            raise ValueError(
                f"{key} is {value_of(cfg, key)!r}, which detectron2's trainer does not support; train without "
                f"detectron2 (bcnet train), or set it to {neutral!r}"
            )


@contextlib.contextmanager
def nearest_key(cfg, source: str) -> Iterator[None]:
    """Context in which merging an unknown key into detectron2's config names the nearest known one.

    Raises:
        KeyError: an unknown key.
    """
    try:
        yield
    except (KeyError, AssertionError) as error:
        message = unknown_key(error, cfg, source)
        if message is None:
            raise
        raise KeyError(message) from None


def unknown_key(error: BaseException, cfg, source: str) -> str | None:
    """What an error of detectron2's config about an unknown key should say; None for another error."""
    unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", str(error))
    return None if unknown is None else unknown_key_message(unknown[1], sorted(_flat_keys(cfg)), source)


def _flat_keys(node: Mapping, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name
