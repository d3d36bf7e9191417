"""BenchmarkSettings: device, precision, sizes and repetitions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.benchmark import timer

DEFAULT_CONFIG = "faster_rcnn/bcnet_R_50_FPN_3x.yaml"
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class BenchmarkSettings:
    """Settings that all rows share.

    Attributes:
        device: "cpu" or "cuda".
        precision: of the networks, "fp32", "bf16" or "fp16" (autocast, both sides alike).
        config: of our Faster R-CNN in the rows that run one.
        peer_channels_last: lay the convolutions of torchvision's detectors channels last, as ours are; torchvision
            leaves that to its user.
        repeats: of both implementations, in turns.
        cpu_time: count the seconds that the processor works for this process rather than those that pass, which on a
            busy machine vary severalfold. With several threads it counts their waiting for each other too.
        quick: small images, shallow networks and little data, to try a row; its ratios say nothing.
        annotations: COCO json for the occluder masks; None takes random scenes.
        max_images: of that json, or of the random scenes.
        evaluation_images: of the random results that are evaluated; None takes 500, or 4 with `quick`.
        seed: of everything random.

    Raises:
        ValueError: CUDA is asked for and there is none, or a value that is not listed here.
    """

    device: str = "cpu"
    precision: str = "fp32"
    config: str = DEFAULT_CONFIG
    peer_channels_last: bool = False
    repeats: int = 5
    cpu_time: bool = False
    quick: bool = False
    annotations: str | None = None
    max_images: int | None = None
    evaluation_images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"the device must be cpu or cuda, got {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda was asked for and there is no CUDA device")
        if self.precision not in PRECISIONS:
            raise ValueError(f"the precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.cpu_time and self.device != "cpu":
            raise ValueError(f"CPU time says nothing of work on the device {self.device!r}")
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")

    @property
    def clock(self) -> Callable[[], float]:
        """What seconds are read from: torch's clock, which waits for the accelerator, or the process' CPU time."""
        return time.process_time if self.cpu_time else timer

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images of the rows that run a network."""
        return (64, 160) if self.quick else (800, 1333)

    @property
    def instances(self) -> int:
        """Objects, and sampled foreground regions, of each of these images."""
        return 2 if self.quick else 64

    @property
    def proposals(self) -> int:
        """Proposals of each image that the RPN hands on."""
        return 50 if self.quick else 1000

    @property
    def detections(self) -> int:
        """Detections of each image."""
        return 5 if self.quick else 100

    @property
    def peer_memory_format(self) -> torch.memory_format:
        """Of torchvision's detectors."""
        return torch.channels_last if self.peer_channels_last else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager:
        """The precision, for both sides alike."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device, dtype=dtype, enabled=dtype is not None)
