"""RoI features from a feature pyramid.

Letters: B images, N RoIs, C channels, S pooled side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align


class RoIPooler(nn.Module):
    """Aligned RoIAlign on the level that fits the RoI's size (FPN paper, equation 1; detectron2's ROIPooler)."""

    def __init__(self, output_size: int, strides: Sequence[int], sampling_ratio: int = 0) -> None:
        """
        Args:
            output_size: S.
            strides: of the levels in pixels, fine to coarse, each twice the one before.
            sampling_ratio: samples per bin side; 0 adapts to the RoI's size.
        """
        super().__init__()
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
        image_index = [b.new_full((len(b), 1), i) for i, b in enumerate(boxes)]
        rois = torch.cat([torch.cat(image_index), torch.cat(list(boxes))], dim=1)
        levels = self.levels(rois[:, 1:])
        channels, side = features[0].shape[1], self.output_size
        pooled = features[0].new_zeros(len(rois), channels, side, side)
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            index = torch.nonzero(levels == level)[:, 0]
            level_rois = rois[index].to(feature.dtype)
            # Not skipped where empty: every level stays in the graph, which DDP asks for.
            aligned = roi_align(
                feature, level_rois, side, spatial_scale=1 / stride, sampling_ratio=self.sampling_ratio, aligned=True
            )
            pooled = pooled.index_put((index,), aligned)
        return pooled
