"""From a config to a trained or evaluated model."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Mapping

import torch
import yaml

from bcnet.checkpoint import load_weights
from bcnet.data import build_train_loader
from bcnet.distributed import is_main_process, rank, shared_seed, world_size
from bcnet.evaluation import flat_metrics
from bcnet.files import write_text
from bcnet.modeling import build_model, resolve_device
from bcnet.prediction.datasets import evaluate
from bcnet.training.checkpoints import Checkpoints
from bcnet.training.interruption import TrainingInterrupted
from bcnet.training.reproducibility import describe_run, seed_everything
from bcnet.training.run_log import append_metrics, set_up_logging
from bcnet.training.step_values import NonFiniteLossError
from bcnet.training.trainer import Trainer

logger = logging.getLogger(__name__)


def train(cfg, resume: bool = False) -> dict[str, float]:
    """Trains the model that a config describes; with a process group, as one of its processes.

    ``OUTPUT_DIR`` receives ``config.yaml``, ``runs.jsonl`` (command, seed, versions, git state, hardware of
    each start), ``log.txt``, ``metrics.json``, TensorBoard events, checkpoints and ``model_final.pth``.

    Args:
        cfg: the config.
        resume: continue from the last checkpoint in ``OUTPUT_DIR``, if there is one.

    Returns:
        dict: ``"<data set>/<task>/<metric>"`` of the final model on the main process; empty without
        ``DATASETS.TEST`` and on the other processes.

    Raises:
        NonFiniteLossError: a loss is not finite; the last checkpoint is from before that.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was written.
        ValueError, FileNotFoundError, KeyError: a config, data set or checkpoint that cannot be used.
    """
    set_up_logging(cfg.OUTPUT_DIR)
    checkpoints = Checkpoints(cfg.OUTPUT_DIR, kept=cfg.SOLVER.CHECKPOINTS_KEPT)
    content = checkpoints.read_last() if resume else None
    cfg = start_run(cfg, saved_seed=content["seed"] if content else None)
    if content:
        _log_config_changes(content["config"], cfg)
    elif resume:
        logger.info("There is no checkpoint in %s to resume from: starting anew", cfg.OUTPUT_DIR)
    elif checkpoints.last():
        logger.warning(
            "%s holds the checkpoints of an earlier run, which this run does not continue (--resume would)",
            cfg.OUTPUT_DIR,
        )
    if cfg.MODEL.FREEZE_DETECTOR and content is None and not cfg.MODEL.WEIGHTS:
        raise ValueError("MODEL.FREEZE_DETECTOR is True and MODEL.WEIGHTS is empty: the detector would stay random")
    model = build_model(cfg)
    class_names = tuple(content.get("class_names", ())) if content else ()
    if content is None and cfg.MODEL.WEIGHTS:
        class_names = load_weights(model, cfg.MODEL.WEIGHTS, strict=False).class_names
    # The model starts alike on every process; what each draws in training (which RoIs, which anchors) is its own.
    seed_everything(cfg.SEED + rank())

    run_evaluation = None
    if cfg.DATASETS.TEST:
        run_evaluation = lambda model: flat_metrics(evaluate(cfg, model, class_names=trainer.class_names))  # noqa: E731
    build_loader = functools.partial(build_train_loader, cfg, class_names=class_names)
    trainer = Trainer(cfg, model, build_loader, run_evaluation, checkpoints=checkpoints)
    if content:
        trainer.load_state(content)
    del content  # as large as the model and its optimizer together
    try:
        return trainer.run()
    except NonFiniteLossError as error:
        logger.error("Training has failed: %s", error)
        raise
    except TrainingInterrupted as interrupted:
        logger.warning("%s", interrupted)
        raise


def evaluate_only(cfg, resume: bool = False) -> dict[str, dict]:
    """Evaluates weights on ``DATASETS.TEST``; see `evaluate`.

    Args:
        cfg: the config.
        resume: take the last checkpoint in ``OUTPUT_DIR``, not MODEL.WEIGHTS.

    Raises:
        ValueError: there are no weights to evaluate, they do not fit the model, or ``DATASETS.TEST`` is empty.
        FileNotFoundError: no such weights file.
    """
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty; name a data set, or 'coco:annotations.json:image_folder'")
    weights = Checkpoints(cfg.OUTPUT_DIR, kept=0).last() if resume else cfg.MODEL.WEIGHTS
    if not weights:
        where = f"there is no checkpoint in {cfg.OUTPUT_DIR!r}" if resume else "MODEL.WEIGHTS is empty"
        raise ValueError(f"nothing to evaluate: {where}")
    set_up_logging(cfg.OUTPUT_DIR)
    cfg = start_run(cfg, config_name="config_evaluation.yaml")
    model = build_model(cfg)
    class_names = load_weights(model, weights).class_names
    metrics = evaluate(cfg, model.eval(), class_names=class_names)
    if is_main_process():
        append_metrics(cfg.OUTPUT_DIR, {"weights": weights, **flat_metrics(metrics)})
    return metrics


def start_run(cfg, *, saved_seed: int | None = None, config_name: str = "config.yaml"):
    """Chooses seed and device, seeds this process, and writes down what the run is made with.

    Args:
        cfg: the config.
        saved_seed: seed of the run that continues; it stands in for a negative ``SEED``.
        config_name: file in OUTPUT_DIR that receives the config.

    Returns:
        A frozen copy of the config with ``SEED`` and ``MODEL.DEVICE`` as they are used.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.SEED < 0 and saved_seed is not None:
        cfg.SEED = saved_seed
    cfg.SEED = shared_seed(cfg.SEED)
    device = resolve_device(cfg.MODEL.DEVICE)
    # Of several processes each has its own GPU, the current one, whatever index the config names.
    cfg.MODEL.DEVICE = device.type if world_size() > 1 else str(device)
    cfg.freeze()
    seed_everything(cfg.SEED)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if is_main_process():
        run = describe_run(cfg.SEED)
        logger.info("Run:\n%s", yaml.safe_dump(run, sort_keys=False).rstrip())
        logger.info("Config:\n%s", cfg.dump().rstrip())
        write_text(cfg.dump(), os.path.join(cfg.OUTPUT_DIR, config_name))
        with open(os.path.join(cfg.OUTPUT_DIR, "runs.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
    return cfg


def _log_config_changes(saved: str, cfg) -> None:
    """Names the keys in which the config differs from the one of the checkpoint that continues."""
    before, now = _flat(yaml.safe_load(saved)), _flat(yaml.safe_load(cfg.dump()))
    changes = [
        f"  {key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changes:
        logger.warning("The config differs from the checkpoint's:\n%s", "\n".join(changes))


def _flat(node: Mapping, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in node.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + str(key): value})
    return flat
