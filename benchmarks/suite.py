"""Benchmark suite: all rows by name, and a description of the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata

import torch

from bcnet.installation import git_state
from bcnet.training.reproducibility import hardware, versions
from benchmarks.evaluation import benchmark_evaluation
from benchmarks.inference import benchmark_fast_inference, benchmark_fcos_inference, benchmark_inference
from benchmarks.lite import benchmark_lite
from benchmarks.mapper import benchmark_mapper
from benchmarks.memory import benchmark_memory
from benchmarks.occluders import benchmark_occluders
from benchmarks.paste import benchmark_paste
from benchmarks.row import BenchmarkRow
from benchmarks.settings import BenchmarkSettings
from benchmarks.targets import benchmark_targets
from benchmarks.training import benchmark_fcos_training, benchmark_mask_branch_training, benchmark_training

_PEERS = ("scikit-image", "scipy", "pycocotools", "faster-coco-eval")


def _occluders(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    max_images = 2 if settings.quick and settings.max_images is None else settings.max_images
    return benchmark_occluders(
        settings.annotations,
        repeats=settings.repeats,
        max_images=max_images,
        seed=settings.seed,
        clock=settings.clock,
    )


# A name may stand for several rows that share measurements.
ROWS: dict[str, Callable[[BenchmarkSettings], list[BenchmarkRow]]] = {
    "targets": benchmark_targets,
    "occluders": _occluders,
    "training": benchmark_training,
    "training-mask-branch": benchmark_mask_branch_training,
    "fcos-training": benchmark_fcos_training,
    "inference": benchmark_inference,
    "inference-compiled": benchmark_fast_inference,
    "fcos-inference": benchmark_fcos_inference,
    "lite": benchmark_lite,
    "paste": benchmark_paste,
    "evaluation": benchmark_evaluation,
    "memory": benchmark_memory,
    "mapper": benchmark_mapper,
}


def run_rows(names: Sequence[str], settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Runs rows in the order given.

    Raises:
        ValueError: an unknown name, or an unreadable file.
        RuntimeError: the results of the two implementations of a row differ.
    """
    for name in names:
        if name not in ROWS:
            raise ValueError(f"there is no row {name!r}; the rows are: {', '.join(ROWS)}")
    return [row for name in names for row in ROWS[name](settings)]


def describe_environment(settings: BenchmarkSettings) -> dict:
    """Hardware, versions, threads, device and precision, ready for JSON."""
    return {
        "hardware": hardware() | {"cpu": _cpu_name()},
        "versions": versions() | {name: metadata.version(name) for name in _PEERS},
        "git": git_state(),
        "threads": torch.get_num_threads(),
        "seconds_are": "CPU time of the process" if settings.cpu_time else "wall-clock time",
        "device": settings.device,
        "precision": settings.precision,
        "config": settings.config,
        "peer_channels_last": settings.peer_channels_last,
        "quick": settings.quick,
        "seed": settings.seed,
    }


def _cpu_name() -> str:
    """The processor model, which `platform` does not report on Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else ""
