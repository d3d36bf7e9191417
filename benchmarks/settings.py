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
    """Settings shared by all rows.

    Attributes:
        device: "cpu" or "cuda".
        precision: precision of the networks, "fp32", "bf16" or "fp16" (autocast, the same for both implementations).
        config: config of our Faster R-CNN in the rows that run one.
        peer_channels_last: use the channels-last memory format in torchvision's detectors too, where it is not the
            default; ours always use it.
        repeats: repetitions of each implementation, interleaved.
        cpu_time: measure the process' CPU time instead of wall-clock time, which on a busy machine varies severalfold.
            With several threads it includes the time they spend busy-waiting for each other.
        quick: small images, shallow networks and little data, as a smoke test; the ratios are meaningless.
        annotations: COCO json for the benchmarks of occluders and of the mapper; None: random scenes.
        images: folder of its images, which the mapper's needs.
        max_images: maximum number of images of that json, or of random scenes.
        evaluation_images: images of the evaluation benchmark; None: 500, or 4 with `quick`.
        seed: seed of all random numbers.

    Raises:
        ValueError: CUDA is requested but not available, or an invalid value.
    """

    device: str = "cpu"
    precision: str = "fp32"
    config: str = DEFAULT_CONFIG
    peer_channels_last: bool = False
    repeats: int = 5
    cpu_time: bool = False
    quick: bool = False
    annotations: str | None = None
    images: str | None = None
    max_images: int | None = None
    evaluation_images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"the device must be cpu or cuda, got {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda was requested, but no CUDA device is available")
        if self.precision not in PRECISIONS:
            raise ValueError(f"the precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.cpu_time and self.device != "cpu":
            raise ValueError(f"CPU time does not measure work on the device {self.device!r}")
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")

    @property
    def clock(self) -> Callable[[], float]:
        """The clock: torch's timer, which synchronises with the accelerator, or the process' CPU time."""
        return time.process_time if self.cpu_time else timer

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images of the rows that run a network."""
        return (64, 160) if self.quick else (800, 1333)

    @property
    def instances(self) -> int:
        """Number of objects, and of sampled foreground RoIs, per image."""
        return 2 if self.quick else 64

    @property
    def proposals(self) -> int:
        """Number of RPN proposals per image after NMS."""
        return 50 if self.quick else 1000

    @property
    def detections(self) -> int:
        """Number of detections per image."""
        return 5 if self.quick else 100

    @property
    def peer_memory_format(self) -> torch.memory_format:
        """Memory format of torchvision's detectors."""
        return torch.channels_last if self.peer_channels_last else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager:
        """Autocast context of the precision, the same for both implementations."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device, dtype=dtype, enabled=dtype is not None)
