"""Gradient clipping of bcnet (CLIP_TYPE "full_model" too) in optimizers that detectron2 built."""

from __future__ import annotations

import torch

from bcnet.training import solver


def clip_before_steps(cfg, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Clips the gradients before each step, as SOLVER.CLIP_GRADIENTS says.

    Returns:
        The same optimizer.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.register_step_pre_hook(
            lambda *_: solver.clip_gradients(
                parameters, clip_type=clip.CLIP_TYPE, clip_value=clip.CLIP_VALUE, norm_type=clip.NORM_TYPE
            )
        )
    return optimizer
