"""Training and evaluation from a config: validates all inputs first, then runs."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence

import torch
import yaml
from torch import nn

from bcnet.checkpoint import load_weights, read_model_file
from bcnet.config import CfgNode, Level
from bcnet.data import build_train_loader
from bcnet.data.classes import listed
from bcnet.data.loaders import TrainingSet, read_training_sets
from bcnet.distributed import is_main_process, rank, shared_seed, world_size
from bcnet.evaluation import flat_metrics
from bcnet.files import write_text
from bcnet.maps import OCCLUDEE, OCCLUDER
from bcnet.modeling import build_model, resolve_device
from bcnet.modeling.detector import require_detector
from bcnet.ops.frozen_batch_norm import FrozenBatchNorm2d
from bcnet.prediction.datasets import EvaluationSet, evaluate, read_evaluation_sets
from bcnet.prediction.loading import with_classes_of_weights
from bcnet.training.build import build_trainer
from bcnet.training.checkpoints import Checkpoints
from bcnet.training.denormals import denormals_flushed
from bcnet.training.interruption import TrainingInterrupted
from bcnet.training.reproducibility import describe_run, seed_everything, summary_of_run
from bcnet.training.run_log import append_metrics, set_up_console_logging, set_up_logging
from bcnet.training.trainer import Trainer

logger = logging.getLogger(__name__)


def train(cfg, resume: bool = False) -> dict[str, float]:
    """Trains the model of a config; with a process group, as one of its processes.

    Writes to ``OUTPUT_DIR`` ``config.yaml``, ``runs.jsonl`` (command, seed, versions, git state, hardware of
    each start), ``log.txt``, ``metrics.json``, TensorBoard events, checkpoints and ``model_final.pth``. Data sets,
    ground truth, weights or checkpoint, the folder and its disk space are checked before anything is written.

    Args:
        cfg: the config.
        resume: continue from the last checkpoint in ``OUTPUT_DIR``, if there is one.

    Returns:
        dict: ``"<data set>/<task>/<metric>"`` of the final model on the main process; empty without
        ``DATASETS.TEST`` and on the other processes.

    Raises:
        NonFiniteLossError: a loss is not finite; the last checkpoint is from before that.
        TrainingInterrupted: SIGINT or SIGTERM was received; a checkpoint was written.
        ValueError, OSError, KeyError: an invalid config, data set, checkpoint or folder.
    """
    set_up_console_logging()
    # Before torch starts its threads.
    with denormals_flushed():
        cfg, trainer = prepare_training(cfg, resume)
        return _run(cfg, trainer)


def _run(cfg, trainer: Trainer) -> dict[str, float]:
    """Runs a prepared training, with its files in ``OUTPUT_DIR``."""
    set_up_logging(cfg.OUTPUT_DIR)
    record_run(cfg)
    try:
        return trainer.run()
    except TrainingInterrupted as interrupted:
        logger.warning("%s", interrupted)
        raise
    except Exception as error:
        logger.error("Training has failed: %s", error)
        logger.debug("Traceback:", exc_info=True)  # for log.txt; the console is the caller's
        raise


def prepare_training(cfg, resume: bool = False) -> tuple[CfgNode, Trainer]:
    """Reads and checks all inputs of a training, without writing anything.

    Args:
        cfg, resume: see `train`.

    Returns:
        The config with ``SEED`` and ``MODEL.DEVICE`` resolved, and the trainer, ready to run.

    Raises:
        ValueError, OSError, KeyError: as `train`.
    """
    checkpoints = Checkpoints(cfg.OUTPUT_DIR, kept=cfg.SOLVER.CHECKPOINTS_KEPT)
    content = checkpoints.read_last() if resume else None
    cfg = resolve_config(cfg, saved_seed=content["seed"] if content else None)
    if content:
        _log_config_changes(content["config"], cfg)
    elif resume:
        logger.info("There is no checkpoint in %s to resume from: starting from the beginning", cfg.OUTPUT_DIR)
    elif checkpoints.last():
        logger.warning(
            "%s holds the checkpoints of an earlier run, which this run does not continue (--resume would)",
            cfg.OUTPUT_DIR,
        )
    if cfg.MODEL.FREEZE_DETECTOR and content is None and not cfg.MODEL.WEIGHTS:
        raise ValueError(
            "MODEL.FREEZE_DETECTOR is True and MODEL.WEIGHTS is empty: the detector would keep random weights"
        )
    training_sets = read_training_sets(cfg)
    cfg = _with_classes_of_data(cfg, training_sets)
    seed_everything(cfg.SEED)
    model = build_model(cfg)
    class_names = tuple(content.get("class_names", ())) if content else ()
    if content is None and cfg.MODEL.WEIGHTS:
        class_names = load_weights(model, cfg.MODEL.WEIGHTS, strict=False).class_names
    elif content is None:
        _warn_of_frozen_initialisation(model)
    # The model is initialised equally on every process; sampling in training (RoIs, anchors) differs by process.
    seed_everything(cfg.SEED + rank())
    loader = build_train_loader(
        cfg,
        content["iteration"] + 1 if content else 0,
        class_names=class_names,
        layers=_target_layers(model),
        training_sets=training_sets,
    )
    run_evaluation = None
    if cfg.DATASETS.TEST:
        evaluation_sets = read_evaluation_sets(cfg, model, loader.info.class_names)
        run_evaluation = functools.partial(_flat_evaluation, cfg, evaluation_sets=evaluation_sets)
    trainer = build_trainer(cfg, model, loader, run_evaluation, checkpoints=checkpoints, resume_from=content)
    checkpoints.check_folder(trainer.state, max_iter=cfg.SOLVER.MAX_ITER, period=cfg.SOLVER.CHECKPOINT_PERIOD)
    return cfg, trainer


def _warn_of_frozen_initialisation(model: nn.Module) -> None:
    """Warns of frozen parts of a backbone without weights: they would keep their random initialisation."""
    backbone = getattr(model, "backbone", None) or nn.Module()
    parameters = sum(not parameter.requires_grad for parameter in backbone.parameters())
    norms = sum(isinstance(module, FrozenBatchNorm2d) for module in backbone.modules())
    if parameters or norms:
        logger.warning(
            "MODEL.WEIGHTS is empty: %d frozen tensors (MODEL.BACKBONE.FREEZE_AT) and %d frozen BatchNorm layers "
            "(MODEL.RESNETS.NORM, MODEL.TIMM.NORM) of the backbone keep their random initialisation",
            parameters,
            norms,
        )


def _with_classes_of_data(cfg: CfgNode, training_sets: Sequence[TrainingSet]) -> CfgNode:
    """The config with the number of classes of the training data, unless that was given with the data or after it.

    A config file's number of classes belongs to its own data sets: other data on the command line bring their own.
    """
    key, info = "MODEL.ROI_HEADS.NUM_CLASSES", training_sets[0][1]
    given = cfg.level_of(key) >= cfg.level_of("DATASETS.TRAIN")
    if given or info.num_classes == cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        return cfg
    logger.info(
        "%s is %d, the classes of %r (%s), not %d as for the data of the config; %s=%d keeps it",
        *(key, info.num_classes, info.name, listed(info.class_names), cfg.MODEL.ROI_HEADS.NUM_CLASSES),
        *(key, cfg.MODEL.ROI_HEADS.NUM_CLASSES),
    )
    return cfg.with_values({key: info.num_classes})


def _target_layers(model: nn.Module) -> tuple[str, ...]:
    """Mask layers that the mapper makes: those of the model's maps, and the occluder's, which the log counts."""
    branch = getattr(model, "mask_branch", None)
    return tuple(dict.fromkeys((OCCLUDEE, OCCLUDER, *(branch.target_layers if branch is not None else ()))))


def _flat_evaluation(cfg, model: nn.Module, *, evaluation_sets: Mapping[str, EvaluationSet]) -> dict[str, float]:
    return flat_metrics(evaluate(cfg, require_detector(model), evaluation_sets=evaluation_sets))


def evaluate_only(cfg, resume: bool = False) -> dict[str, dict]:
    """Evaluates weights on ``DATASETS.TEST``; see `evaluate`. Computes in the precision of SOLVER.AMP.

    Args:
        cfg: the config.
        resume: evaluate the last checkpoint in ``OUTPUT_DIR``, not MODEL.WEIGHTS.

    Raises:
        ValueError: there are no weights to evaluate, they do not fit the model, or ``DATASETS.TEST`` is empty.
        FileNotFoundError: no such weights file or data set.
    """
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty; name a data set, or 'coco:annotations.json:image_folder'")
    weights = Checkpoints(cfg.OUTPUT_DIR, kept=0).last() if resume else cfg.MODEL.WEIGHTS
    if not weights:
        where = f"there is no checkpoint in {cfg.OUTPUT_DIR!r}" if resume else "MODEL.WEIGHTS is empty"
        raise ValueError(f"nothing to evaluate: {where}")
    set_up_console_logging()
    cfg = resolve_config(cfg)
    seed_everything(cfg.SEED)
    content = read_model_file(weights)
    cfg = with_classes_of_weights(cfg, content)
    model = build_model(cfg)
    class_names = load_weights(model, weights, content=content).class_names
    evaluation_sets = read_evaluation_sets(cfg, model, class_names)
    set_up_logging(cfg.OUTPUT_DIR)
    record_run(cfg, config_name="config_evaluation.yaml")
    metrics = evaluate(cfg, model.eval(), evaluation_sets=evaluation_sets)
    if is_main_process():
        append_metrics(cfg.OUTPUT_DIR, {"weights": weights, **flat_metrics(metrics)})
    return metrics


def resolve_config(cfg, *, saved_seed: int | None = None):
    """Resolves seed and device.

    Args:
        cfg: the config.
        saved_seed: seed of the resumed run; replaces a negative ``SEED``.

    Returns:
        A frozen copy of the config with ``SEED`` and ``MODEL.DEVICE`` resolved.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.SEED < 0 and saved_seed is not None:
        cfg.SEED = saved_seed
    cfg.SEED = shared_seed(cfg.SEED)
    device = resolve_device(cfg.MODEL.DEVICE)
    # With several processes, each uses its own current GPU, regardless of the index in the config.
    cfg.MODEL.DEVICE = device.type if world_size() > 1 else str(device)
    cfg.freeze()
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    return cfg


def record_run(cfg, *, config_name: str = "config.yaml") -> None:
    """Records command, versions, hardware and config of the run, on the main process.

    Args:
        cfg: the resolved config.
        config_name: file in OUTPUT_DIR for the config.
    """
    if not is_main_process():
        return
    run = describe_run(cfg.SEED)
    logger.info("%s", summary_of_run(run))
    logger.debug("Run:\n%s", yaml.safe_dump(run, sort_keys=False).rstrip())  # for log.txt
    path = os.path.join(cfg.OUTPUT_DIR, config_name)
    logger.info("Config keys set for this run (all keys are in %s):\n%s", path, _key_lines(cfg, Level.FILE))
    logger.debug("Config, where it differs from its base:\n%s", _key_lines(cfg, Level.BASE))  # for log.txt
    logger.debug("All keys of the config:\n%s", cfg.dump().rstrip())  # for log.txt
    write_text(cfg.dump(), path)
    with open(os.path.join(cfg.OUTPUT_DIR, "runs.jsonl"), "a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def _key_lines(cfg, level: Level) -> str:
    """The keys whose values come from a higher level, one a line."""
    return "\n".join(f"  {key}: {value}" for key, value in sorted(cfg.set_above(level).items())) or "  none"


def _log_config_changes(saved: str, cfg) -> None:
    """Logs the keys in which the config differs from that of the resumed checkpoint."""
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
