"""Protocol of the models that inference and evaluation take: a detector, or a wrapper around one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

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

    def __call__(self, images: Sequence[Tensor], targets: Any = None, /) -> Any: ...

    def inference(
        self, images: Sequence[Tensor], /, *, with_occluder: bool = False, thresholds: Thresholds | None = None
    ) -> list[Detections]:
        """Detections of each image, as `Detector.inference` gives them."""
        ...

    def modules(self) -> Iterator[nn.Module]: ...
