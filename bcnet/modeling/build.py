"""From a config to a model on its device."""

from __future__ import annotations

import logging

import torch

from bcnet.modeling.detector import Detector
from bcnet.modeling.registry import DETECTOR_REGISTRY

logger = logging.getLogger(__name__)


def build_model(cfg) -> Detector:
    """The detector that MODEL.META_ARCHITECTURE names, freshly initialised, on MODEL.DEVICE (the CPU without a GPU).

    Weights of convolutions lie channels last, and feature maps follow them: the layout that the fast kernels of
    both GPUs and CPUs compute in. Shapes and results are those of any layout.

    Raises:
        ValueError: a name that no registry has, or values that a component cannot work with.
    """
    model = DETECTOR_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE).from_config(cfg)
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
