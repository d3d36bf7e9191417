"""Builds the trainer from a config: the only place that reads SOLVER and TEST keys for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bcnet.distributed import is_main_process, world_size
from bcnet.modeling.precision import autocast_dtype
from bcnet.training.checkpoints import Checkpointer, Checkpoints
from bcnet.training.periodic import PeriodicEvaluation, PeriodicPictures
from bcnet.training.recorder import Recorder
from bcnet.training.run_log import RunLog
from bcnet.training.solver import LearningRate, build_optimizer, clip_gradients
from bcnet.training.state import TrainingState
from bcnet.training.step import TrainingStep
from bcnet.training.trainer import Trainer


def build_trainer(
    cfg,
    model: nn.Module,
    loader: Iterable[list[dict]],
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    resume_from: Mapping | None = None,
) -> Trainer:
    """The trainer of a model, ready to run; nothing is written yet.

    Args:
        cfg: the config, with SEED already resolved (not negative).
        model: on its device, with its initial weights. ``model(images, targets)`` gives scalar losses by name.
        loader: see `Trainer`; starts at the iteration after `resume_from`. Its ``info``, if any, has the class names.
        evaluate: see `PeriodicEvaluation`; called every ``TEST.EVAL_PERIOD`` iterations and at the end.
        checkpoints: files of the run; None uses those in ``cfg.OUTPUT_DIR``.
        resume_from: content of the checkpoint to continue from.

    Raises:
        ValueError: IMS_PER_BATCH cannot be split, a solver value is invalid, or the checkpoint is of another
            architecture or beyond MAX_ITER.
    """
    solver = cfg.SOLVER
    share = world_size() * solver.ACCUMULATE_STEPS
    if solver.IMS_PER_BATCH % share:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH ({solver.IMS_PER_BATCH}) must be divisible by the number of processes "
            f"({world_size()}) times SOLVER.ACCUMULATE_STEPS ({solver.ACCUMULATE_STEPS})"
        )
    amp_dtype = autocast_dtype(cfg)
    state = build_state(cfg, model, getattr(getattr(loader, "info", None), "class_names", ()))
    step = TrainingStep(state, LearningRate.from_config(cfg), amp_dtype=amp_dtype, clip=_clipping(cfg))
    if resume_from is not None:
        state.load(resume_from, cfg.OUTPUT_DIR)
    checkpoints = checkpoints or Checkpoints(cfg.OUTPUT_DIR, kept=solver.CHECKPOINTS_KEPT)
    return Trainer(
        state=state,
        step=step,
        loader=loader,
        max_iter=solver.MAX_ITER,
        recorder=Recorder(_run_log(cfg, state.next_iteration), log_period=solver.LOG_PERIOD),
        checkpointer=Checkpointer(checkpoints, state, period=solver.CHECKPOINT_PERIOD),
        evaluation=PeriodicEvaluation(evaluate, period=cfg.TEST.EVAL_PERIOD),
        pictures=PeriodicPictures(period=cfg.VIS_PERIOD, image_format=cfg.INPUT.FORMAT, amp_dtype=amp_dtype),
        accumulate_steps=solver.ACCUMULATE_STEPS,
    )


def build_state(cfg, model: nn.Module, class_names: Iterable[str] = ()) -> TrainingState:
    """The initial state: optimizer, loss scaling for fp16, averaged weights if SOLVER.EMA is enabled."""
    device = next(model.parameters()).device
    averaged = None
    if cfg.SOLVER.EMA.ENABLED:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.SOLVER.EMA.DECAY))
    return TrainingState(
        model,
        build_optimizer(cfg, model),
        scaler=torch.amp.GradScaler(device.type, enabled=autocast_dtype(cfg) == torch.float16),
        averaged=averaged,
        class_names=tuple(class_names),
        seed=cfg.SEED,
        config=cfg.dump(),
    )


def _clipping(cfg) -> Callable[[Iterable[nn.Parameter]], None] | None:
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if not clipping.ENABLED:
        return None
    return functools.partial(
        clip_gradients,
        clip_type=clipping.CLIP_TYPE,
        clip_value=clipping.CLIP_VALUE,
        norm_type=clipping.NORM_TYPE,
    )


def _run_log(cfg, start_iteration: int) -> RunLog | None:
    if not is_main_process():
        return None
    return RunLog(
        cfg.OUTPUT_DIR,
        max_iter=cfg.SOLVER.MAX_ITER,
        start_iteration=start_iteration,
        images_per_iteration=cfg.SOLVER.IMS_PER_BATCH,
    )
