"""Frozen BatchNorm in one pass over the activations: fixed statistics and affine parameters.

Letters: N samples, C channels, H x W.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """torchvision's FrozenBatchNorm2d in one pass over its input instead of two.

    The type of the result is torchvision's too: float32 in mixed precision.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C, H, W] to the same; x * scale + shift with one rounding instead of two."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])
