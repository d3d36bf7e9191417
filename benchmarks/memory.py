"""Benchmark of peak GPU memory in training: bilayer versus plain mask head, and torchvision."""

from __future__ import annotations

import gc

import torch

from benchmarks.detectors import build_mask_rcnn, build_ours, equal_config
from benchmarks.row import BenchmarkRow
from benchmarks.scene import CrowdedImage
from benchmarks.settings import BenchmarkSettings
from benchmarks.training import (
    PLAIN_CONFIG,
    TrainingStep,
    check_region_counts,
    describe_batch,
    our_step,
    peer_step,
    training_images,
)

PEER = "torchvision"


def benchmark_memory(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Peak allocated memory of a training step with the bilayer head, against the plain head and torchvision's model.

    Each is measured alone, in turns. Skipped without a GPU: the CPU memory of a process depends on its allocator as
    much as on the network.
    """
    work = f"peak memory of a training step, {describe_batch(settings)}, {settings.instances} foreground RoIs each"
    common = {"as_cost": True, "measure": "bytes"}
    peers = {
        "memory": ("plain mask head", PLAIN_CONFIG, 1.25),
        "memory-torchvision": ("torchvision Mask R-CNN", PEER, None),
    }

    def row(name: str, ours: list[float], theirs: list[float], skipped: str = "") -> BenchmarkRow:
        peer, _, required = peers[name]
        return BenchmarkRow(work, peer, ours, theirs, "step", name=name, required=required, skipped=skipped, **common)

    if settings.device != "cuda":
        return [row(name, [], [], "needs --device cuda") for name in peers]
    images = training_images(settings)
    peaks: dict[str, list[float]] = {settings.config: [], PLAIN_CONFIG: [], PEER: []}
    for _ in range(settings.repeats):
        for network, values in peaks.items():
            values.append(_peak(settings, network, images))
    return [row(name, peaks[settings.config], peaks[network]) for name, (_, network, _) in peers.items()]


def _peak(settings: BenchmarkSettings, network: str, images: list[CrowdedImage]) -> float:
    """The peak of one step of torchvision's model, or of ours by a config."""
    gc.collect()  # frees the previous network
    step = training_step_of(settings, network, images)
    check_region_counts({network: step}, settings)
    step()  # the first step allocates the optimizer's momentum and the libraries' workspaces
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated())


def training_step_of(settings: BenchmarkSettings, network: str, images: list[CrowdedImage]) -> TrainingStep:
    """A training step of `PEER` or of a config, with nothing else of it on the device."""
    if network == PEER:
        cfg = equal_config(settings, settings.config)
        return peer_step(build_mask_rcnn(cfg, settings.seed, settings.peer_memory_format).train(), images, settings)
    cfg = equal_config(settings, network)
    peer = build_mask_rcnn(equal_config(settings, network, "MODEL.DEVICE", "cpu"), settings.seed)
    return our_step(build_ours(cfg, peer, settings.seed).train(), cfg, images, settings)
