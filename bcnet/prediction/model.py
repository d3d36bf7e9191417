"""Protocol of the models that inference and evaluation take: a detector, or a wrapper around one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bcnet.modeling import Thresholds
from bcnet.structures import Detections


class InferenceModel(Protocol):
    """What `Detector`, `AugmentedDetector` and `Predictor` have in common."""

    @property
    def device(self) -> torch.device: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def detects(self) -> bool:
        """False: the model takes boxes, and finds none itself."""
        ...

    def inference(
        self,
        images: Sequence[Tensor],
        /,
        *,
        with_occluder: bool = False,
        thresholds: Thresholds | None = None,
        output_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Detections]:
        """Detections of each image, as `Detector.inference` gives them."""
        ...

    def inference_masks(
        self, images: Sequence[Tensor], detections: Sequence[Detections], /, *, with_occluder: bool = False
    ) -> list[Detections]:
        """The maps of given detections, as `Detector.inference_masks` gives them."""
        ...

    def modules(self) -> Iterator[nn.Module]: ...
