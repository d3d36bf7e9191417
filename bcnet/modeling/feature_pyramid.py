"""Feature pyramid network (FPN) whose top-down additions are made in place.

Letters: B images, C channels, H_l x W_l feature map of a level.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


class FeaturePyramidNetwork(torchvision.ops.FeaturePyramidNetwork):
    """torchvision's FeaturePyramidNetwork, bit for bit, without an upsampled copy of each coarser level."""

    def forward(self, x: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        """
        Args:
            x: float [B, C_l, H_l, W_l] by name, fine to coarse.

        Returns:
            dict: float [B, C, H_l, W_l] by name, fine to coarse, with the extra levels.
        """
        names, stages = list(x), list(x.values())
        inner = [block(stage) for block, stage in zip(self.inner_blocks, stages, strict=True)]
        for level in range(len(inner) - 2, -1, -1):
            inner[level] = add_upsampled(inner[level], inner[level + 1])
        levels = [block(features) for block, features in zip(self.layer_blocks, inner, strict=True)]
        if self.extra_blocks is not None:
            levels, names = self.extra_blocks(levels, stages, names)
        return OrderedDict(zip(names, levels, strict=True))


def add_upsampled(fine: Tensor, coarse: Tensor) -> Tensor:
    """``fine`` plus the nearest-neighbour upsampling of ``coarse`` to its size.

    Into ``fine`` itself if it has twice the size; not in a compiled or exported network, which fuses it in its own way.
    """
    height, width = coarse.shape[-2:]
    if torch.compiler.is_compiling() or fine.shape[-2:] != (2 * height, 2 * width):
        return fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
    fine.unflatten(3, (width, 2)).unflatten(2, (height, 2)).add_(coarse[:, :, :, None, :, None])
    return fine
