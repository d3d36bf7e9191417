"""Frozen BatchNorm in one pass over the activations, or folded into the convolution before it.

Letters: N samples, C channels, H x W.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn


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
        scale, shift = self.scale_and_shift()
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Float [C] each: the normalisation is x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


def convolved_and_normalised(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(conv(x))``, a frozen BatchNorm folded into the convolution where that is less work.

    Equal up to rounding. Folding scales the weights in every call, so that nothing can be out of date; it is less work
    where the output has more pixels than a filter has weights. In mixed precision and in a compiled or exported
    network, which fuse it in their own way, nothing is folded.

    Args:
        conv: a convolution without bias.
        norm: any normalisation; only `FrozenBatchNorm2d` is folded.
        x: float [N, C_in, H, W].
    """
    if not isinstance(norm, FrozenBatchNorm2d) or torch.compiler.is_compiling():
        return norm(conv(x))
    pixels = x.shape[2] * x.shape[3] // (conv.stride[0] * conv.stride[1])
    if pixels <= conv.weight[0].numel() or torch.is_autocast_enabled(x.device.type):
        return norm(conv(x))
    scale, shift = norm.scale_and_shift()
    weight = conv.weight * scale[:, None, None, None]
    return nn.functional.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
