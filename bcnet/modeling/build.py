"""Builds the detector of a config on its device."""

from __future__ import annotations

import logging

import torch

from bcnet.modeling.detector import Detector
from bcnet.modeling.registry import DETECTOR_REGISTRY

logger = logging.getLogger(__name__)


def build_model(cfg) -> Detector:
    """The detector that MODEL.META_ARCHITECTURE names, freshly initialised, on MODEL.DEVICE (the CPU without a GPU).

    Convolution weights, and with them feature maps, use the channels-last memory format, which the fast kernels of
    GPUs and CPUs need. Shapes and results do not depend on it.

    Raises:
        ValueError: a name that is not registered, or values that a component does not support.
    """
    model = DETECTOR_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE).from_config(cfg)
    if cfg.MODEL.FREEZE_DETECTOR:
        model.freeze_detector()
    model.to(resolve_device(cfg.MODEL.DEVICE), memory_format=torch.channels_last)
    if cfg.MODEL.COMPILE:
        model.compile()
    return model


def build_meta_model(cfg) -> Detector:
    """The detector on the meta device, without memory and random numbers: to count parameters or check a config.

    Raises:
        ValueError: as of `build_model`.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


def resolve_device(name: str) -> torch.device:
    """The device of that name; falls back to the CPU, with a warning, if CUDA is not available.

    Raises:
        ValueError: torch knows no such device.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("MODEL.DEVICE is %r and there is no CUDA device: using the CPU", name)
        return torch.device("cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"MODEL.DEVICE must be a device such as 'cpu', 'cuda' or 'cuda:1', got {name!r}") from error
