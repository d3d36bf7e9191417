"""Benchmark of peak GPU memory in training: bilayer against plain mask head."""

from __future__ import annotations

import gc

import torch

from benchmarks.detectors import build_mask_rcnn, build_ours, equal_config
from benchmarks.row import BenchmarkRow
from benchmarks.scene import CrowdedImage
from benchmarks.settings import BenchmarkSettings
from benchmarks.training import PLAIN_CONFIG, check_region_counts, describe_batch, our_step, training_images


def benchmark_memory(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Peak of the allocated memory over a training step of each, alone on the device, in turns.

    Skipped without a GPU: what a process takes of a computer's memory is decided by its allocator as much as by the
    network.
    """
    work = f"peak memory of a training step, {describe_batch(settings)}, {settings.instances} foreground RoIs each"
    common = {"name": "memory", "required": 1.25, "as_cost": True, "measure": "bytes"}
    if settings.device != "cuda":
        return [BenchmarkRow(work, "plain mask head", [], [], "step", skipped="needs --device cuda", **common)]
    images = training_images(settings)
    peaks: dict[str, list[float]] = {settings.config: [], PLAIN_CONFIG: []}
    for _ in range(settings.repeats):
        for config, values in peaks.items():
            values.append(_peak(settings, config, images))
    ours, theirs = peaks.values()
    return [BenchmarkRow(work, "plain mask head", ours, theirs, "step", **common)]


def _peak(settings: BenchmarkSettings, config: str, images: list[CrowdedImage]) -> float:
    gc.collect()  # the network before is gone only then
    cfg = equal_config(settings, config)
    peer = build_mask_rcnn(equal_config(settings, config, "MODEL.DEVICE", "cpu"), settings.seed)
    step = our_step(build_ours(cfg, peer, settings.seed).train(), cfg, images, settings)
    check_region_counts({config: step}, settings)
    step()  # the optimizer's momentum and the libraries' workspaces come with the first step
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated())
