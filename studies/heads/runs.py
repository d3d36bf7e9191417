"""Execution of a study of heads: each run is trained by the usual trainer, and resumed after interruptions."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bcnet.bilayer import MaskHead
from bcnet.checkpoint import load_weights, read_checkpoint, write_weights
from bcnet.data import load_dataset
from bcnet.data.loaders import build_train_loader
from bcnet.files import open_locked, read_json, write_json
from bcnet.modeling import Detector, build_model
from bcnet.modeling.precision import autocast_dtype
from bcnet.training.build import build_trainer
from bcnet.training.checkpoints import Checkpoints
from bcnet.training.reproducibility import describe_run, seed_everything
from bcnet.training.run_log import set_up_logging
from bcnet.training.train import resolve_config
from studies.cost import mask_head_cost
from studies.ground_truth_boxes import evaluate_arms, means, pooled_test_rois
from studies.heads.cache import CachedHeads, CachedRoIs, weights_digest, write_views
from studies.heads.data import data_specs
from studies.heads.heads import ManyHeads, ManyHeadsBranch, build_arms
from studies.heads.plan import HeadsPlan, HeadsRun
from studies.run_files import LOCK_FILE, keep_json, require_same, write_run_config
from studies.test_set import ImageTruth, describe_test_set, read_test_set

logger = logging.getLogger("bcnet.studies.heads")


def result_file(output: str, run: HeadsRun, arm: str) -> str:
    """The json of an arm, rewritten at every evaluation."""
    return os.path.join(output, "results", run.data, f"seed_{run.seed}", f"{arm}.json")


def test_set_file(output: str, data: str, test: str) -> str:
    return os.path.join(output, "results", data, f"{test}.json")


def is_done(plan: HeadsPlan, output: str, run: HeadsRun) -> bool:
    """Whether every arm of a run was evaluated after the plan's last iteration.

    Raises:
        ValueError: from `read_result`.
    """
    return all(read_result(plan, output, run, arm) for arm in run.arms)


def read_result(plan: HeadsPlan, output: str, run: HeadsRun, arm: str) -> dict | None:
    """The result of an arm; None before it was evaluated after the last iteration.

    Raises:
        ValueError: it is that of another plan.
    """
    path = result_file(output, run, arm)
    if not os.path.exists(path):
        return None
    result = read_json(path)
    asked = {
        "trunk": plan.trunk,
        "max_iter": plan.trunk_config(run, output, "", 1).SOLVER.MAX_ITER,
        "overrides": plan.arms[arm],
    }
    for key, value in asked.items():
        if result.get(key, value) != value:  # older results lack the overrides
            raise ValueError(f"{path} is of another plan: its {key} is {result[key]!r}, the plan's {value!r}")
    return result if result["iteration"] == result["max_iter"] else None


def execute_heads_runs(plan: HeadsPlan, output: str, runs: Sequence[HeadsRun], *, workers: int = 1) -> None:
    """Trains and evaluates all runs without a result, one after the other.

    Several processes may share the work, each started with the same plan and folder: what another one is working on is
    left to it.

    Raises:
        TrainingInterrupted: SIGINT or SIGTERM was received; a checkpoint was written.
        ValueError: from the plan's values; or the folder has data, runs or results of another plan, finished ones too.
    """
    _check_arms(plan)
    data = {name: _read_data(plan, output, name, workers) for name in dict.fromkeys(run.data for run in runs)}
    for run in runs:
        folder = os.path.join(output, "runs", run.name)
        os.makedirs(folder, exist_ok=True)
        try:
            with open_locked(os.path.join(folder, LOCK_FILE), "w", f"another process works on {run.name}"):
                _Execution(plan, output, run, data[run.data]).run()
        except BlockingIOError as busy:
            logger.info("%s: left to it", busy)


@dataclass(frozen=True)
class _Data:
    """A set of data: the spec of its training set, the number of its classes, and its test sets by name."""

    train: str
    num_classes: int
    tests: Mapping[str, list[ImageTruth]]


def _read_data(plan: HeadsPlan, output: str, name: str, workers: int) -> _Data:
    """Makes what is missing of a set of data, reads its test sets, and writes their descriptions for the report."""
    os.makedirs(output, exist_ok=True)
    with waiting_for_lock(os.path.join(output, "data.lock"), "makes the data"):
        train, specs, classes = data_specs(plan, output, name, workers)
        tests = {test: read_test_set(spec) for test, spec in specs.items()}
        for test, truths in tests.items():
            remedy = "choose another output folder, or remove this file and the runs"
            keep_json(test_set_file(output, name, test), describe_test_set(truths, plan.olac), remedy)
    return _Data(train, classes, tests)


def _check_arms(plan: HeadsPlan) -> None:
    """Builds the heads, without memory, so that a mistyped one is an error before anything is written."""
    channels = plan.trunk_config(plan.runs()[0], "", "", 1).MODEL.FPN.OUT_CHANNELS
    with torch.device("meta"):
        build_arms(plan, tuple(plan.arms), channels, seed=0)


@contextlib.contextmanager
def waiting_for_lock(path: str, work: str) -> Iterator[None]:
    """Context with an exclusive lock on a file, which waits for another process to finish the work."""
    while True:
        try:
            lock = open_locked(path, "w", f"another process {work}")
            break
        except BlockingIOError as busy:
            logger.info("%s: waiting for it", busy)
            time.sleep(5)
    with lock:
        yield


class _Execution:
    """One run: its trunk, data, training and evaluations."""

    def __init__(self, plan: HeadsPlan, output: str, run: HeadsRun, data: _Data) -> None:
        self.plan, self.output, self.spec, self.data = plan, output, run, data
        self.cfg = resolve_config(plan.trunk_config(run, output, data.train, data.num_classes))
        self.started = time.perf_counter()

    def run(self) -> None:
        cfg = self.cfg
        set_up_logging(cfg.OUTPUT_DIR)
        write_run_config(cfg, cfg.OUTPUT_DIR)
        cached = {"views": self.plan.views, "rois": self.plan.rois} if self.plan.frozen else {}
        arms = {arm: self.plan.arms[arm] for arm in self.spec.arms}
        description = {"trunk": self.plan.trunk, **cached, "arms": arms}
        described = os.path.join(cfg.OUTPUT_DIR, "arms.json")
        require_same(described, description)
        if is_done(self.plan, self.output, self.spec):
            return
        checkpoints = Checkpoints(cfg.OUTPUT_DIR, kept=1)
        content = checkpoints.read_last()
        start = content["iteration"] + 1 if content else 0
        model, loader = self._frozen(start) if self.plan.frozen else self._live(start, load=content is None)
        keep_json(described, description)  # from here on the folder is this plan's
        seed_everything(cfg.SEED)
        trainer = build_trainer(
            cfg,
            model,
            loader,
            lambda evaluated: self._evaluate(evaluated, trainer.state.next_iteration),
            checkpoints=checkpoints,
            resume_from=content,
        )
        trainer.run()

    def _trunk(self, arms: Sequence[str], *, load: bool = True) -> tuple[Detector, ManyHeadsBranch]:
        """The trunk with the heads of these arms, and with the weights of MODEL.WEIGHTS if it is to `load` them."""
        seed_everything(self.cfg.SEED)
        trunk = build_model(self.cfg)
        if load and self.cfg.MODEL.WEIGHTS:
            load_weights(trunk, self.cfg.MODEL.WEIGHTS, strict=False)
        elif self.plan.frozen:
            raise ValueError("the trunk is frozen (trunk: none) and settings.MODEL.WEIGHTS empty: it would stay random")
        assert trunk.mask_branch is not None
        heads = ManyHeads(build_arms(self.plan, arms, trunk.backbone.out_channels, self.cfg.SEED), self.plan.trunk)
        heads.to(trunk.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        branch = trunk.mask_branch = ManyHeadsBranch.of(trunk.mask_branch, heads)
        return trunk, branch

    def _live(self, start: int, *, load: bool) -> tuple[nn.Module, Iterator[list[dict]]]:
        trunk, branch = self._trunk(self.spec.arms, load=load)
        return trunk.train(), build_train_loader(self.cfg, start, layers=branch.target_layers)

    def _frozen(self, start: int) -> tuple[nn.Module, CachedRoIs]:
        # The layers of all arms: one cache serves every run of this data and seed.
        trunk, branch = self._trunk(tuple(self.plan.arms))
        folder = os.path.join(self.output, "cache", self.spec.data, f"seed_{self.cfg.SEED}")
        os.makedirs(folder, exist_ok=True)
        with waiting_for_lock(os.path.join(folder, LOCK_FILE), f"makes the cache {folder}"):
            write_run_config(self.cfg.with_values({"OUTPUT_DIR": folder}), folder)
            source = {"layers": sorted(branch.target_layers), "weights": weights_digest(trunk.backbone)}
            keep_json(os.path.join(folder, "cache.json"), source, f"remove the cache, {folder}")
            records, info = load_dataset(self.data.train)
            write_views(folder, self.cfg, trunk.eval(), records, info.class_names, self.plan.views)
            for name, truths in self.data.tests.items():
                _write_test_cache(os.path.join(folder, f"{name}.safetensors"), self.cfg, trunk, truths)
        self.cache, self.channels = folder, trunk.backbone.out_channels
        heads = ManyHeads({arm: branch.head.arms[arm] for arm in self.spec.arms}, self.plan.trunk)  # pyright: ignore
        loader = CachedRoIs(
            folder,
            self.plan.views,
            batch_size=self.plan.rois,
            side=2 * branch.pooler.output_size,
            seed=self.cfg.SEED,
            start_iteration=start,
        )
        return CachedHeads(heads, branch.negative_ratio).to(trunk.device).train(), loader

    def _evaluate(self, model: nn.Module, iteration: int) -> dict[str, float]:
        """Writes the results of every arm; returns the means by "test/arm/metric" for the log."""
        if isinstance(model, CachedHeads):
            heads = model.heads
        else:
            assert isinstance(model, Detector) and isinstance(model.mask_branch, ManyHeadsBranch)
            heads = model.mask_branch.head
        arms: Mapping[str, MaskHead] = dict(heads.arms.items())  # pyright: ignore[reportAssignmentType]
        now = time.perf_counter()
        results = {arm: self._result(arm, head, iteration, now - self.started) for arm, head in arms.items()}
        self.started = now
        flat = {}
        for test, truths in self.data.tests.items():
            values = evaluate_arms(
                arms,
                self._test_features(model, test, truths),
                truths,
                roi_scale=self.cfg.MODEL.ROI_MASK_HEAD.ROI_SCALE,
                amp_dtype=autocast_dtype(self.cfg),
            )
            for arm, columns in values.items():
                average = means(columns)
                rounded = {name: [round(v, 3) for v in column] for name, column in columns.items() if name in average}
                before = results[arm]["tests"].get(test, {"curve": {}})
                results[arm]["tests"][test] = {"curve": before["curve"] | {str(iteration): average}, "values": rounded}
                flat |= {f"{test}/{arm}/{name}": value for name, value in average.items()}
        for arm, result in results.items():
            write_json(result_file(self.output, self.spec, arm), result, indent=None)
        return flat

    def _test_features(self, model: nn.Module, test: str, truths: Sequence[ImageTruth]) -> Iterator[Tensor]:
        if isinstance(model, Detector):
            yield from pooled_test_rois(self.cfg, model, truths)
            return
        features = read_checkpoint(os.path.join(self.cache, f"{test}.safetensors"))["model"]["features"]
        device = next(model.parameters()).device
        for part in features.split([len(truth.given) for truth in truths]):
            yield part.to(device)

    def _result(self, arm: str, head: MaskHead, iteration: int, seconds: float) -> dict:
        path = result_file(self.output, self.spec, arm)
        before = read_json(path) if os.path.exists(path) else {"tests": {}, "seconds": 0.0}
        side = self.cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
        channels = self.cfg.MODEL.FPN.OUT_CHANNELS
        return {
            "arm": arm,
            "data": self.spec.data,
            "seed": self.spec.seed,
            "trunk": self.plan.trunk,
            "weights": self.cfg.MODEL.WEIGHTS,
            "iteration": iteration,
            "max_iter": self.cfg.SOLVER.MAX_ITER,
            "overrides": self.plan.arms[arm],
            "arms_together": len(self.spec.arms),
            "seconds": before["seconds"] + seconds,
            "cost": mask_head_cost(head, channels, side),
            "run": describe_run(self.spec.seed),
            "tests": before["tests"],
        }


def _write_test_cache(path: str, cfg, trunk: Detector, truths: Sequence[ImageTruth]) -> None:
    if not os.path.exists(path):
        parts = [pooled.half().cpu() for pooled in pooled_test_rois(cfg, trunk, truths)]
        write_weights({"features": torch.cat(parts)}, path)


def read_results(plan: HeadsPlan, output: str) -> dict[tuple[str, int, str], dict]:
    """The results of all arms that were evaluated after their last iteration, by data, seed and arm.

    Raises:
        ValueError: from `read_result`.
    """
    arms = ((run, arm, read_result(plan, output, run, arm)) for run in plan.runs() for arm in run.arms)
    return {(run.data, run.seed, arm): result for run, arm, result in arms if result is not None}
