"""Benchmark of peak GPU memory in training: bilayer versus plain mask head."""

from __future__ import annotations

import gc

import torch

from benchmarks.detectors import build_mask_rcnn, build_ours, equal_config
from benchmarks.row import BenchmarkRow
from benchmarks.scene import CrowdedImage
from benchmarks.settings import BenchmarkSettings
from benchmarks.training import PLAIN_CONFIG, check_region_counts, describe_batch, our_step, training_images


def benchmark_memory(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Peak allocated memory of a training step of each head, measured separately and alternately.

    Skipped without a GPU: the CPU memory of a process depends on its allocator as much as on the network.
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
    gc.collect()  # frees the previous network
    cfg = equal_config(settings, config)
    peer = build_mask_rcnn(equal_config(settings, config, "MODEL.DEVICE", "cpu"), settings.seed)
    step = our_step(build_ours(cfg, peer, settings.seed).train(), cfg, images, settings)
    check_region_counts({config: step}, settings)
    step()  # the first step allocates the optimizer's momentum and the libraries' workspaces
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated())
