"""Benchmark of inference: bcnet's detectors against torchvision's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from unittest import mock

import torch
from torch import Tensor, nn

from bcnet.modeling import Detector
from bcnet.structures import Detections
from benchmarks.detectors import (
    CANDIDATES_PER_DETECTION,
    box_score_threshold,
    build_mask_rcnn,
    build_ours,
    build_torchvision_fcos,
    equal_config,
    fcos_score_thresholds,
    set_attribute,
)
from benchmarks.row import BenchmarkRow
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import interleaved
from benchmarks.training import FCOS_CONFIG, PLAIN_CONFIG


def benchmark_inference(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Faster R-CNN with the bilayer head against torchvision's Mask R-CNN, one image, equal number of detections.

    Once up to the masks of 28 x 28 pixels, the output of our detector, and once with masks pasted into the image.
    torchvision's model always pastes; its pasting is disabled for the former.

    Raises:
        RuntimeError: one of the networks returns another number of detections.
    """
    ours, plain, peer, image = inference_models(settings)
    variants = {
        "ours": our_inference(ours, image, settings, pasted=False),
        "plain": our_inference(plain, image, settings, pasted=False),
        "peer": peer_inference(peer, image, settings, pasted=False),
        "ours pasted": our_inference(ours, image, settings, pasted=True),
        "peer pasted": peer_inference(peer, image, settings, pasted=True),
    }
    check_detection_counts(variants, settings)
    seconds = interleaved(variants, settings.repeats, clock=settings.clock)
    work = f"inference, {describe_image(settings)}, {settings.detections} detections"

    def row(name: str, what: str, our_variant: str, peer_variant: str, required: float | None) -> BenchmarkRow:
        return BenchmarkRow(
            f"{work}, {what}",
            "torchvision Mask R-CNN",
            seconds[our_variant],
            seconds[peer_variant],
            "image",
            name=name,
            required=required,
            as_cost=True,
        )

    return [
        row("inference", f"28 x 28 masks, {settings.config}", "ours", "peer", 1.25),
        row("inference-pasted", f"masks in the image, {settings.config}", "ours pasted", "peer pasted", 1.25),
        row("inference-plain", f"28 x 28 masks, {PLAIN_CONFIG}", "plain", "peer", None),
    ]


def benchmark_fast_inference(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Ours in bf16 with compiled networks, against torchvision's Mask R-CNN in bf16 without compilation, on a GPU.

    Raises:
        RuntimeError: one of the networks returns another number of detections.
    """
    settings = replace(settings, precision="bf16")
    work = f"inference, {describe_image(settings)}, {settings.detections} detections, 28 x 28 masks, compiled"
    common = {"name": "inference-compiled", "required": 1.0, "as_cost": True}
    if settings.device != "cuda":
        skipped = "needs --device cuda"
        return [BenchmarkRow(work, "torchvision Mask R-CNN", [], [], "image", skipped=skipped, **common)]
    ours, _, peer, image = inference_models(settings)
    ours.compile()
    variants = {
        "ours": our_inference(ours, image, settings, pasted=False),
        "peer": peer_inference(peer, image, settings, pasted=False),
    }
    check_detection_counts(variants, settings)
    seconds = interleaved(variants, settings.repeats, clock=settings.clock)
    return [BenchmarkRow(work, "torchvision Mask R-CNN", seconds["ours"], seconds["peer"], "image", **common)]


def benchmark_fcos_inference(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """FCOS without masks, against torchvision's FCOS, which has no masks.

    Raises:
        RuntimeError: one of the networks returns another number of detections.
    """
    peer = build_torchvision_fcos(
        equal_config(settings, FCOS_CONFIG), settings.seed, settings.peer_memory_format
    ).eval()
    image = random_image(settings)
    peer.score_thresh, threshold = fcos_score_thresholds(
        peer, [(image / 255).to(settings.device)], CANDIDATES_PER_DETECTION * settings.detections
    )
    cfg = equal_config(settings, FCOS_CONFIG, "MODEL.MASK_ON", False, "MODEL.FCOS.SCORE_THRESH_TEST", threshold)
    variants = {
        "ours": our_inference(build_ours(cfg, peer, settings.seed), image, settings, pasted=False),
        "peer": peer_inference(peer, image, settings, pasted=False),
    }
    check_detection_counts(variants, settings)
    seconds = interleaved(variants, settings.repeats, clock=settings.clock)
    return [
        BenchmarkRow(
            f"inference, {describe_image(settings)}, {settings.detections} detections, FCOS, boxes",
            "torchvision FCOS",
            seconds["ours"],
            seconds["peer"],
            "image",
            name="fcos-inference",
            as_cost=True,
        )
    ]


def inference_models(settings: BenchmarkSettings) -> tuple[Detector, Detector, nn.Module, Tensor]:
    """Our detector with bilayer and with plain head, torchvision's, all in eval mode, and an image, uint8 [3, H, W].

    All three use the score threshold that `CANDIDATES_PER_DETECTION` candidates per detection exceed.
    """
    cfg = equal_config(settings, settings.config)
    peer = build_mask_rcnn(cfg, settings.seed, settings.peer_memory_format).eval()
    image = random_image(settings)
    threshold = box_score_threshold(
        peer, [(image / 255).to(settings.device)], CANDIDATES_PER_DETECTION * settings.detections
    )
    set_attribute(peer.get_submodule("roi_heads"), "score_thresh", threshold)
    ours, plain = (
        build_ours(
            equal_config(settings, config, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", threshold), peer, settings.seed
        ).eval()
        for config in (settings.config, PLAIN_CONFIG)
    )
    return ours, plain, peer, image


def random_image(settings: BenchmarkSettings) -> Tensor:
    """uint8 [3, H, W]."""
    generator = torch.Generator().manual_seed(settings.seed)
    return torch.randint(0, 256, (3, *settings.image_size), dtype=torch.uint8, generator=generator)


def describe_image(settings: BenchmarkSettings) -> str:
    height, width = settings.image_size
    return f"{height} x {width}, {settings.precision}"


def our_inference(
    model: Detector, image: Tensor, settings: BenchmarkSettings, *, pasted: bool
) -> Callable[[], Detections]:
    """One inference; with `pasted`, the masks are also pasted into the image, bool [D, H, W], and discarded."""
    images = [image.to(settings.device)]

    def run() -> Detections:
        with settings.autocast():
            (result,) = model.inference(images)
        if pasted:
            _ = result.masks
        return result

    return run


def peer_inference(
    model: nn.Module, image: Tensor, settings: BenchmarkSettings, *, pasted: bool
) -> Callable[[], dict[str, Tensor]]:
    """Like `our_inference`; the image is converted to float beforehand, which ours does inside the timed call."""
    images = [(image / 255).to(settings.device)]

    @torch.no_grad()
    def run() -> dict[str, Tensor]:
        with contextlib.nullcontext() if pasted else _without_paste(model), settings.autocast():
            (result,) = model(images)
        if pasted:
            _ = result["masks"][:, 0] > 0.5
        return result

    return run


def check_detection_counts(variants: Mapping[str, Callable], settings: BenchmarkSettings) -> None:
    """
    Raises:
        RuntimeError: a variant returns another number of detections than `settings.detections`.
    """
    counts = {}
    for name, variant in variants.items():
        result = variant()
        counts[name] = len(result["boxes"] if isinstance(result, dict) else result)
    if set(counts.values()) != {settings.detections}:
        raise RuntimeError(f"all variants must return {settings.detections} detections, got {counts}")


def _without_paste(model: nn.Module) -> AbstractContextManager:
    transform = model.get_submodule("transform")
    return mock.patch.object(transform, "postprocess", lambda result, _sizes, _original_sizes: result)
