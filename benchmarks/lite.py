"""Benchmark of the small box-prompted model at 640 pixels, against torchvision's Mask R-CNN."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bcnet.config import load_config
from bcnet.modeling import build_model
from bcnet.structures import Detections
from benchmarks.inference import check_detection_counts, describe_image, inference_models, peer_inference
from benchmarks.row import BenchmarkRow
from benchmarks.scene import crowded_image
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import interleaved

LITE_CONFIG = "lite/box_prompted_lite0.yaml"
PEER = "torchvision Mask R-CNN, which detects too"


@dataclass(frozen=True)
class _LiteSettings(BenchmarkSettings):
    """Settings with images of 640 x 640."""

    @property
    def image_size(self) -> tuple[int, int]:
        return super().image_size if self.quick else (640, 640)


def benchmark_lite(settings: BenchmarkSettings) -> list[BenchmarkRow]:
    """Maps of both layers in given boxes, against torchvision's Mask R-CNN from the image to as many 28 x 28 masks.

    The weights are random, which does not change the time. Without timm the row is skipped.

    Raises:
        RuntimeError: one of the networks gives another number of detections.
    """
    settings = _LiteSettings(**{field.name: getattr(settings, field.name) for field in fields(settings)})
    work = f"masks in {settings.detections} given boxes, {describe_image(settings)}, both layers, {LITE_CONFIG}"
    common = {"name": "lite", "as_cost": True}
    if importlib.util.find_spec("timm") is None:
        return [BenchmarkRow(work, PEER, [], [], "image", skipped="needs timm", **common)]
    _, _, peer, image = inference_models(settings)
    variants = {
        "ours": lite_inference(image, settings),
        "peer": peer_inference(peer, image, settings, pasted=False),
    }
    check_detection_counts(variants, settings)
    seconds = interleaved(variants, settings.repeats, clock=settings.clock)
    return [BenchmarkRow(work, PEER, seconds["ours"], seconds["peer"], "image", **common)]


def lite_inference(image: Tensor, settings: BenchmarkSettings) -> Callable[[], Detections]:
    """One call of the model with boxes like COCO's."""
    torch.manual_seed(settings.seed)
    model = build_model(load_config(LITE_CONFIG, ["MODEL.DEVICE", settings.device])).eval()
    boxes = crowded_image(settings.detections, settings.image_size, seed=settings.seed).boxes
    count = len(boxes)
    given = Detections(settings.image_size, boxes, torch.ones(count), torch.zeros(count, dtype=torch.int64))
    images, given = [image.to(settings.device)], given.to(settings.device)

    def run() -> Detections:
        with settings.autocast():
            (result,) = model.inference_masks(images, [given], with_occluder=True)
        return result

    return run
