"""Anchor generator of the RPN, equal to detectron2's.

Letters: A anchors per cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """detectron2's anchors: not rounded, centred on ``(x + offset) * stride``.

    torchvision's generator rounds the anchors and derives strides from the padded size, which differ where a
    level's side is odd.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
        offset: float = 0.0,
    ) -> None:
        """
        Args:
            sizes: per level (or once for all), square roots of the anchors' areas in pixels.
            aspect_ratios: per level (or once for all), height / width.
            strides: per level, in pixels.
            offset: of the first anchor's centre, in strides, 0..1.

        Raises:
            ValueError: sizes or ratios given neither once nor per level.
        """
        super().__init__()
        for name, value in (("sizes", sizes), ("aspect_ratios", aspect_ratios)):
            if len(value) not in (1, len(strides)):
                raise ValueError(f"anchor {name} must be given once or for each of {len(strides)} levels, got {value}")
        sizes = list(sizes) * (len(strides) if len(sizes) == 1 else 1)
        aspect_ratios = list(aspect_ratios) * (len(strides) if len(aspect_ratios) == 1 else 1)
        self.strides = list(strides)
        self.offset = offset
        for level, (level_sizes, level_ratios) in enumerate(zip(sizes, aspect_ratios, strict=True)):
            self.register_buffer(f"cell_{level}", _cell_anchors(level_sizes, level_ratios), persistent=False)

    @property
    def num_anchors(self) -> int:
        """A, which all levels share."""
        return len(self.get_buffer("cell_0"))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Per level, the anchors of every cell row by row: float32 [H_l * W_l * A, 4], xyxy in absolute pixels."""
        anchors = []
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            cell = getattr(self, f"cell_{level}")
            height, width = feature.shape[-2:]
            xs = (torch.arange(width, device=cell.device) + self.offset) * stride
            ys = (torch.arange(height, device=cell.device) + self.offset) * stride
            y, x = torch.meshgrid(ys, xs, indexing="ij")
            shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4).to(cell.dtype)
            anchors.append((shifts + cell).reshape(-1, 4))
        return anchors


def _cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    anchors = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            anchors.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(anchors)
