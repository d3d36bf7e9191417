"""Execution of a study: each run in its own process, resumed after interruptions."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from bcnet.checkpoint import load_weights
from bcnet.config import load_config
from bcnet.files import open_locked, write_json
from bcnet.maps import OCCLUDER_MASK
from bcnet.modeling import build_model
from bcnet.modeling.build import build_meta_model
from bcnet.prediction.ground_truth_boxes import masks_in_ground_truth_boxes
from bcnet.training import train
from bcnet.training.reproducibility import describe_run
from studies.cost import mask_head_cost
from studies.ground_truth_boxes import maps_in_ground_truth_boxes
from studies.occlusion.plan import START, Run, StudyPlan, run_folder
from studies.occlusion.relations import order_by_estimate
from studies.run_files import CONFIG_FILE, LOCK_FILE, write_run_config

logger = logging.getLogger("bcnet.studies.occlusion")

RESULT_FILE = "result.json"


def execute_runs(
    plan: StudyPlan,
    output: str,
    num_classes: dict[str, int],
    *,
    runs: Sequence[Run] | None = None,
    jobs: int = 1,
    threads: int = 0,
    imports: Sequence[str] = (),
) -> list[Run]:
    """Trains and evaluates all runs without a result.

    Args:
        plan: the study.
        output: the study's folder.
        num_classes: number of classes of each set of scenes.
        runs: only these runs (`StudyPlan.chosen`); None: all.
        jobs: number of parallel runs, distributed over the GPUs if there are any.
        threads: CPU threads per run; 0 divides the cores among the jobs.
        imports: modules that register components, which each run's process imports.

    Returns:
        list[Run]: the runs that failed, or could not start because their initial run failed. See their logs.

    Raises:
        KeyboardInterrupt: it was raised; the runs in progress were stopped and have written checkpoints.
        ValueError: an arm has a value that its model does not support, such as an unknown mask head; or a run's folder
            contains the config of another plan.
    """
    runs = plan.runs() if runs is None else runs
    _check_models(plan, output, num_classes, runs)
    for run in runs:
        write_run_config(plan.config(run, output, num_classes=num_classes[run.data]), run_folder(output, run))
    waiting = [run for run in runs if not _is_done(output, run)]
    threads = threads or max(1, (os.cpu_count() or 1) // jobs)
    failed: list[Run] = []
    running: dict[Future, tuple[Run, int]] = {}
    imports = [*plan.imports, *imports]
    with ThreadPoolExecutor(jobs) as pool, _stopping_children() as children:
        while waiting or running:
            ready = [run for run in waiting if plan.start is None or run.arm == START or _is_done(output, run.start)]
            for run in ready[: jobs - len(running)]:
                waiting.remove(run)
                slot = min(set(range(jobs)) - {slot for _, slot in running.values()})
                running[pool.submit(_run_process, children, run_folder(output, run), slot, threads, imports)] = (
                    run,
                    slot,
                )
            if not running:
                failed += waiting  # their initial runs have failed
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                (run, _), (seconds, status) = running.pop(future), future.result()
                left = len(waiting) + len(running)
                logger.info("%s %s after %.0f s; %d left", run.name, "failed" if status else "done", seconds, left)
                if status:
                    failed.append(run)
    return failed


def _check_models(plan: StudyPlan, output: str, num_classes: dict[str, int], runs: Sequence[Run]) -> None:
    """Builds the model of every arm, without memory, so that a mistyped one is an error before the first run."""
    for run in {(run.data, run.detector, run.arm): run for run in runs}.values():
        cfg = plan.config(run, output, num_classes=num_classes[run.data])
        try:
            build_meta_model(cfg)
        except ValueError as error:
            raise ValueError(f"{run.name}: {error}") from error


def result_file(output: str, run: Run) -> str:
    return os.path.join(run_folder(output, run), RESULT_FILE)


def _is_done(output: str, run: Run) -> bool:
    return os.path.exists(result_file(output, run))


@contextlib.contextmanager
def _stopping_children() -> Iterator[set[subprocess.Popen]]:
    """A set of processes, which SIGTERM asks to stop when a KeyboardInterrupt leaves the context."""
    children: set[subprocess.Popen] = set()
    try:
        yield children
    except KeyboardInterrupt:
        for child in list(children):
            child.terminate()
        raise


def _run_process(
    children: set[subprocess.Popen], folder: str, slot: int, threads: int, imports: Sequence[str]
) -> tuple[float, int]:
    """Executes a run in a new process with output to ``console.txt``; returns seconds and exit status."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), BCNET_PROGRESS="0")
    gpus = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if gpus == [""]:
        gpus = [str(index) for index in range(torch.cuda.device_count())]
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    start = time.perf_counter()
    with open(os.path.join(folder, "console.txt"), "a", encoding="utf-8") as console:
        child = subprocess.Popen(
            [sys.executable, "-m", "studies.occlusion.run", folder, *imports],
            env=environment,
            stdout=console,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        children.add(child)
        status = child.wait()
        children.remove(child)
    return time.perf_counter() - start, status


def execute_run(folder: str) -> None:
    """Trains the run of a folder, resuming if interrupted, evaluates it and writes ``result.json``.

    Raises:
        BlockingIOError: another process is executing the run.
    """
    with open_locked(os.path.join(folder, LOCK_FILE), "w", f"another process is executing the run in {folder}"):
        if not os.path.exists(os.path.join(folder, RESULT_FILE)):
            _execute(folder)


def _execute(folder: str) -> None:
    cfg = load_config(os.path.join(folder, CONFIG_FILE))
    start = time.perf_counter()
    metrics = train(cfg, resume=True)
    trained = time.perf_counter()
    (dataset,) = cfg.DATASETS.TEST
    result = {"metrics": {name.removeprefix(f"{dataset}/"): value for name, value in metrics.items()}}
    if cfg.MODEL.MASK_ON:
        model = build_model(cfg)
        load_weights(model, os.path.join(cfg.OUTPUT_DIR, "model_final.pth"))
        result["true_boxes"] = masks_in_ground_truth_boxes(cfg, model.eval(), dataset)
        result["maps_in_true_boxes"] = maps_in_ground_truth_boxes(cfg, model, dataset)
        branch = model.mask_branch
        result["mask_head"] = mask_head_cost(branch.head, model.backbone.out_channels, branch.pooler.output_size)
        if any(spec.name == OCCLUDER_MASK.name for spec in branch.head.maps):
            result["relations"] = order_by_estimate(cfg, model)
    result["seconds"] = {
        "training_and_evaluation": trained - start,
        "true_boxes": time.perf_counter() - trained,
    }
    result["run"] = describe_run(cfg.SEED)
    write_json(os.path.join(folder, RESULT_FILE), result)


def read_results(plan: StudyPlan, output: str) -> dict[Run, dict]:
    """The results of the completed runs."""
    results = {}
    for run in plan.runs():
        if _is_done(output, run):
            with open(result_file(output, run), encoding="utf-8") as file:
                results[run] = json.load(file)
    return results
