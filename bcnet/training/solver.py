"""Optimizer, learning-rate schedule and gradient clipping from the config."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from torch import nn

logger = logging.getLogger(__name__)

NORM_LAYERS = (
    nn.modules.batchnorm._NormBase,  # BatchNorm, SyncBatchNorm, InstanceNorm in every dimension
    nn.GroupNorm,
    nn.LayerNorm,
)


def parameter_groups(model: nn.Module, *, weight_decay: float, weight_decay_norm: float) -> list[dict]:
    """The trainable parameters, those of norm layers in a separate group with their own weight decay.

    As detectron2's `get_default_optimizer_params`; a parameter that two modules share is listed once.
    """
    regular, norm, seen = [], [], set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                (norm if isinstance(module, NORM_LAYERS) else regular).append(parameter)
    groups = [{"params": regular, "weight_decay": weight_decay}, {"params": norm, "weight_decay": weight_decay_norm}]
    return [group for group in groups if group["params"]]


def build_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters, by ``cfg.SOLVER``.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    solver = cfg.SOLVER
    groups = parameter_groups(model, weight_decay=solver.WEIGHT_DECAY, weight_decay_norm=solver.WEIGHT_DECAY_NORM)
    if not groups:
        raise ValueError("the model has no trainable parameter; see MODEL.BACKBONE.FREEZE_AT")
    if solver.OPTIMIZER == "AdamW":
        return torch.optim.AdamW(groups, lr=solver.BASE_LR)
    return torch.optim.SGD(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)


class LearningRate:
    """The learning rate of every iteration: warm-up, then multi-step or cosine, as detectron2 schedules it.

    The rate depends only on the iteration, so there is no state to save.
    """

    def __init__(self, *, base: float, schedule: ParamScheduler, max_iter: int) -> None:
        self.base = base
        self.schedule = schedule
        self.max_iter = max_iter

    @classmethod
    def from_config(cls, cfg) -> LearningRate:
        """Reads ``cfg.SOLVER``.

        Raises:
            ValueError: MAX_ITER below 1, STEPS not ascending, or BASE_LR not positive.
        """
        solver = cfg.SOLVER
        if solver.MAX_ITER < 1:
            raise ValueError(f"SOLVER.MAX_ITER is {solver.MAX_ITER}; it must be at least 1")
        if solver.BASE_LR <= 0:
            raise ValueError(f"SOLVER.BASE_LR is {solver.BASE_LR}; it must be positive")
        if solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
            schedule = CosineParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)
        else:
            if list(solver.STEPS) != sorted(set(solver.STEPS)) or min(solver.STEPS, default=1) < 1:
                raise ValueError(f"SOLVER.STEPS is {tuple(solver.STEPS)}; the steps must ascend and be positive")
            steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
            if len(steps) < len(solver.STEPS):
                logger.warning(
                    "SOLVER.STEPS %s: steps at or after SOLVER.MAX_ITER (%d) have no effect",
                    tuple(solver.STEPS),
                    solver.MAX_ITER,
                )
            values = [solver.GAMMA**k for k in range(len(steps) + 1)]
            schedule = MultiStepParamScheduler(values, milestones=steps, num_updates=solver.MAX_ITER)
        if solver.WARMUP_ITERS > solver.MAX_ITER:
            logger.warning(
                "SOLVER.WARMUP_ITERS is %d, longer than the run (SOLVER.MAX_ITER %d): the warm-up is compressed into "
                "%d iterations, and the learning rate reaches its full value only at the end",
                solver.WARMUP_ITERS,
                solver.MAX_ITER,
                solver.MAX_ITER,
            )
        warm_up = min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0)
        if warm_up > 0:
            # The warm-up ends at the schedule's value at that iteration; the schedule is not shifted.
            schedule = CompositeParamScheduler(
                [LinearParamScheduler(solver.WARMUP_FACTOR * schedule(0.0), schedule(warm_up)), schedule],
                interval_scaling=["rescaled", "fixed"],
                lengths=[warm_up, 1.0 - warm_up],
            )
        return cls(base=solver.BASE_LR, schedule=schedule, max_iter=solver.MAX_ITER)

    def at(self, iteration: int) -> float:
        """The rate of an iteration, 0..max_iter-1."""
        return self.base * self.schedule(iteration / self.max_iter)

    def apply(self, optimizer: torch.optim.Optimizer, iteration: int) -> float:
        """Sets the rate of all groups and returns it."""
        rate = self.at(iteration)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate


def clip_gradients(parameters: Iterable[nn.Parameter], *, clip_type: str, clip_value: float, norm_type: float) -> None:
    """Clips gradients in place, without host-device synchronisation.

    Args:
        parameters: those without a gradient are skipped.
        clip_type: ``"value"`` clips every entry, ``"norm"`` every parameter's own norm (detectron2's meaning),
            ``"full_model"`` the norm over all parameters.
        clip_value: the largest absolute entry or norm.
        norm_type: p of the norm.

    Raises:
        ValueError: an unknown `clip_type`.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    if clip_type == "value":
        nn.utils.clip_grad_value_(parameters, clip_value)
    elif clip_type == "norm":
        for parameter in parameters:
            nn.utils.clip_grad_norm_(parameter, clip_value, norm_type)
    elif clip_type == "full_model":
        nn.utils.clip_grad_norm_(parameters, clip_value, norm_type)
    else:
        raise ValueError(f"clip_type is {clip_type!r}; it must be 'value', 'norm' or 'full_model'")
