"""RoI pooling from a feature pyramid: RoIAlign on the level that fits each RoI's size.

Letters: B images, N RoIs, C channels, S pooled side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bcnet.ops import pyramid_roi_align


class RoIPooler(nn.Module):
    """Aligned RoIAlign on the level that fits the RoI's size (FPN paper, equation 1; detectron2's ROIPooler)."""

    def __init__(self, output_size: int, strides: Sequence[int], sampling_ratio: int = 0) -> None:
        """
        Args:
            output_size: S.
            strides: of the levels in pixels, fine to coarse, each twice the one before.
            sampling_ratio: samples per bin side; 0 or less adapts to the RoI's size.

        Raises:
            ValueError: strides that are not consecutive powers of two.
        """
        super().__init__()
        first = int(strides[0])
        if first & (first - 1) or list(strides) != [first * 2**level for level in range(len(strides))]:
            raise ValueError(f"RoIs are pooled from strides that are consecutive powers of 2, got {list(strides)}")
        self.output_size = output_size
        self.strides = list(strides)
        self.sampling_ratio = sampling_ratio
        self.first_level = int(strides[0]).bit_length() - 1
        self.last_level = self.first_level + len(strides) - 1

    def levels(self, boxes: Tensor) -> Tensor:
        """Index of each box's level: floor(4 + log2(sqrt(area) / 224)), clamped to the levels there are."""
        sides = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        level = torch.floor(4 + torch.log2(sides / 224 + 1e-8))
        return level.clamp(self.first_level, self.last_level).to(torch.int64) - self.first_level

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """
        Args:
            features: per level, float [B, C, H_l, W_l].
            boxes: per image, float32 [N_i, 4], xyxy in absolute pixels of the network's input.

        Returns:
            Tensor: float [N, C, S, S], the RoIs of all images in order; N may be 0.
        """
        image_index = [b.new_full((b.shape[0], 1), i) for i, b in enumerate(boxes)]
        # Boxes that are not finite (of a diverged model) or have negative sides are pooled as a point: to zeros.
        corners = torch.cat(list(boxes)).nan_to_num(0.0, 0.0, 0.0)
        corners = torch.cat([corners[:, :2], torch.maximum(corners[:, :2], corners[:, 2:])], dim=1)
        rois = torch.cat([torch.cat(image_index), corners], dim=1)
        return pyramid_roi_align(
            features,
            rois,
            self.levels(rois[:, 1:]),
            self.output_size,
            strides=self.strides,
            sampling_ratio=self.sampling_ratio,
        )
