"""Training and evaluation with detectron2's trainer: ``tools/train_net.py --host detectron2``."""

from __future__ import annotations

import argparse
import logging
import os
import weakref
from collections import OrderedDict

import torch
import torch.distributed as dist
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog, build_detection_train_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, default_setup, hooks
from detectron2.engine import launch as detectron2_launch
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.solver import build_optimizer
from detectron2.utils import comm

from bcnet.config import find_config, split_overrides
from bcnet.config.defaults import add_bcnet_config
from bcnet.detectron2.checkpoint import BCNetCheckpointer
from bcnet.detectron2.dataset_mapper import BCNetDatasetMapper
from bcnet.detectron2.datasets import register_datasets
from bcnet.detectron2.evaluation import BCNetEvaluator, all_maps
from bcnet.detectron2.freezing import freeze_detector
from bcnet.detectron2.keys import check_trainer_keys, derive_from_backbone, nearest_key
from bcnet.detectron2.optimizers import clip_before_steps
from bcnet.detectron2.tta import with_test_time_augmentation
from bcnet.files import write_text
from bcnet.modeling import resolve_device
from bcnet.registry import import_modules
from bcnet.training import solver
from bcnet.training.launch import started_by_torchrun
from bcnet.training.occluder_report import OCCLUDER_LOSSES, OccluderReport

logger = logging.getLogger(__name__)


class _WatchOccluderLosses(hooks.HookBase):
    """Warns once if no training instance has an occluder, as the engine does."""

    def __init__(self, log_period: int) -> None:
        self._report = OccluderReport(log_period)

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        self._report.add({name: latest[name][0] for name in OCCLUDER_LOSSES if name in latest})

    def after_train(self) -> None:
        self._report.finish()


class BCNetTrainer(DefaultTrainer):
    """`DefaultTrainer` with bcnet's mapper, checkpointer, evaluator and solver keys, and test-time augmentation.

    Data sets that the config names by their files, or by a name of bcnet's catalog, are registered. The config is
    written to ``OUTPUT_DIR/config.yaml``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Raises:
            KeyError: an unknown data set.
            ValueError: bcnet's keys are not in the config, or one of them has no effect in detectron2's trainer or a
                wrong value; or of `build_model` and `build_train_loader`.
        """
        check_trainer_keys(cfg)
        cfg = _without_amp_on_cpu(cfg)
        register_datasets((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
        if comm.is_main_process():  # as detectron2's `default_setup`, which not every script calls
            write_text(cfg.dump(), os.path.join(cfg.OUTPUT_DIR, "config.yaml"))
        super().__init__(cfg)
        self.checkpointer = BCNetCheckpointer(self._trainer.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        for hook in self._hooks:
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook.checkpointer = self.checkpointer
        if isinstance(self._trainer, AMPTrainer) and cfg.SOLVER.AMP.DTYPE == "bf16":
            self._trainer.precision = torch.bfloat16
            # bf16 has the range of fp32: no loss scaling.
            self._trainer.grad_scaler = torch.amp.GradScaler("cuda", enabled=False)

    def build_hooks(self) -> list:
        built = super().build_hooks()
        for hook in built:
            if isinstance(hook, hooks.PeriodicWriter):
                hook._period = self.cfg.SOLVER.LOG_PERIOD
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook.max_to_keep = self.cfg.SOLVER.CHECKPOINTS_KEPT or None
        return [_WatchOccluderLosses(self.cfg.SOLVER.LOG_PERIOD), *built]

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """
        Raises:
            ValueError: MODEL.FREEZE_DETECTOR of a model without a mask head.
        """
        model = super().build_model(cfg)
        return freeze_detector(model) if cfg.MODEL.FREEZE_DETECTOR else model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        """
        Raises:
            ValueError: a data set has more classes than MODEL.ROI_HEADS.NUM_CLASSES.
        """
        # detectron2's @configurable adds the config to the arguments, and has no annotations that say so.
        mapper = BCNetDatasetMapper(cfg, is_train=True)  # pyright: ignore[reportCallIssue]
        loader = build_detection_train_loader(cfg, mapper=mapper)  # pyright: ignore[reportCallIssue, reportOptionalCall]
        for name in cfg.DATASETS.TRAIN:
            classes = len(MetadataCatalog.get(name).get("thing_classes", ()))
            if classes > cfg.MODEL.ROI_HEADS.NUM_CLASSES:
                raise ValueError(
                    f"data set {name!r} has {classes} classes, but MODEL.ROI_HEADS.NUM_CLASSES is "
                    f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES}; set it to {classes}"
                )
        return loader

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """detectron2's SGD or bcnet's AdamW, with bcnet's gradient clipping (also "full_model").

        For other trainers: ``build_optimizer = BCNetTrainer.build_optimizer`` in the class.

        Raises:
            ValueError: see `__init__`.
        """
        check_trainer_keys(cfg)
        if cfg.SOLVER.OPTIMIZER == "SGD":
            unclipped = cfg.clone()
            unclipped.defrost()
            unclipped.SOLVER.CLIP_GRADIENTS.ENABLED = False
            optimizer = build_optimizer(unclipped, model)
        else:
            optimizer = solver.build_optimizer(cfg, model)
        return clip_before_steps(cfg, optimizer)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> BCNetEvaluator:
        # One folder per data set: result files have fixed names.
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            folder = os.path.join(folder, str(list(cfg.DATASETS.TEST).index(dataset_name)))
        return BCNetEvaluator.from_config(cfg, dataset_name, folder)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators=None) -> OrderedDict:
        """`DefaultTrainer.test`; where the depth order is known, mask heads return the maps that it is derived from."""
        register_datasets(cfg.DATASETS.TEST)
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        elif evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        with all_maps(model, any(getattr(evaluator, "uses_relations", False) for evaluator in evaluators)):
            return super().test(cfg, model, evaluators)

    @classmethod
    def test_with_augmentation(cls, cfg: CfgNode, model: torch.nn.Module) -> OrderedDict:
        """`test` under ``TEST.AUG``; task names get the suffix "_TTA"."""
        logger.info("Evaluating with test-time augmentation")
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, with_test_time_augmentation(cfg, model), evaluators)
        return OrderedDict((f"{name}_TTA", values) for name, values in results.items())


def _without_amp_on_cpu(cfg: CfgNode) -> CfgNode:
    if not cfg.SOLVER.AMP.ENABLED or torch.device(cfg.MODEL.DEVICE).type != "cpu":
        return cfg
    logger.warning("detectron2 trains in mixed precision on CUDA only: SOLVER.AMP.ENABLED is turned off")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.AMP.ENABLED = False
    cfg.freeze()
    return cfg


def setup(args: argparse.Namespace) -> CfgNode:
    """detectron2's config with our keys, the arguments' file and overrides; its data sets are registered.

    Raises:
        ValueError: a key of bcnet that detectron2's trainer does not support.
        KeyError: an unknown key or data set.
    """
    import_modules(getattr(args, "imports", ()))
    cfg = get_cfg()
    add_bcnet_config(cfg)
    if args.config_file:
        # On a copy, because `default_setup` reads the arguments' config file.
        args = argparse.Namespace(**{**vars(args), "config_file": find_config(args.config_file)})
        with nearest_key(cfg, args.config_file):
            cfg.merge_from_file(args.config_file)
    with nearest_key(cfg, "overrides"):
        cfg.merge_from_list(split_overrides(args.opts or []))
    check_trainer_keys(cfg)
    derive_from_backbone(cfg)
    if cfg.MODEL.FREEZE_DETECTOR and not (cfg.MODEL.WEIGHTS or args.resume or args.eval_only):
        raise ValueError(
            "MODEL.FREEZE_DETECTOR is True and MODEL.WEIGHTS is empty: the detector would keep random weights"
        )
    device = resolve_device(cfg.MODEL.DEVICE)
    cfg.MODEL.DEVICE = str(device)
    cfg.freeze()
    register_datasets((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    default_setup(cfg, args)
    return cfg


def run(args: argparse.Namespace) -> dict | None:
    """What each process does: train, or with ``args.eval_only`` evaluate.

    Returns:
        Metrics of the evaluation on the main process; None after training, whose metrics are in the log.
    """
    cfg = setup(args)
    if args.eval_only:
        model = BCNetTrainer.build_model(cfg)
        BCNetCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        results = BCNetTrainer.test(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            results.update(BCNetTrainer.test_with_augmentation(cfg, model))
        if comm.is_main_process():
            verify_results(cfg, results)
        return results
    trainer = BCNetTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    if cfg.TEST.AUG.ENABLED:
        trainer.register_hooks([hooks.EvalHook(0, lambda: trainer.test_with_augmentation(cfg, trainer._trainer.model))])
    return trainer.train()


def main(args: argparse.Namespace) -> dict | None:
    """Runs the arguments of detectron2's `default_argument_parser` in as many processes as they request.

    Under torchrun this process is one of the group already, and torchrun's counts hold.

    Returns:
        What `run` returns where there is one process, else None.

    Raises:
        ValueError: more processes than GPUs.
    """
    if started_by_torchrun():
        _run_under_torchrun(args)
        return None
    if args.num_gpus * args.num_machines == 1:
        return run(args)
    if args.num_gpus > torch.cuda.device_count():
        raise ValueError(f"--num-gpus {args.num_gpus}: this machine has {torch.cuda.device_count()}")
    detectron2_launch(
        run,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
    return None


def _run_under_torchrun(args: argparse.Namespace) -> None:
    if not torch.cuda.is_available() and int(os.environ["WORLD_SIZE"]) > 1:
        raise ValueError(
            "detectron2's trainer needs a GPU for each of torchrun's processes, and there is none; on a CPU start one "
            "process, or train without --host detectron2, which takes several on CPUs"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    run(args)
    dist.destroy_process_group()
