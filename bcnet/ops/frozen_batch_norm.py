"""Frozen BatchNorm folded into the convolution before it, so that it costs no pass of its own over the activations.

Letters: N samples, C channels, H x W.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """torchvision's FrozenBatchNorm2d in one pass over its input instead of two, or in none.

    Attributes:
        folded: the convolution before it does its work (`fold_frozen_batch_norm`); it returns its input.
    """

    folded = False

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Float [C] each: y = scale * x + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C, H, W] to the same; x * scale + shift with one rounding instead of two."""
        if self.folded:
            return x
        scale, shift = self.scale_and_shift()
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


class FoldedConv2d(nn.Conv2d):
    """A convolution without bias that applies the frozen BatchNorm after it by its own weights.

    weight * scale and shift are computed in every call, which is nothing beside a pass over the output: the weights
    stay those that are trained and saved.
    """

    norm: FrozenBatchNorm2d

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.norm.scale_and_shift()
        return self._conv_forward(x, self.weight * scale[:, None, None, None], shift)


def fold_frozen_batch_norm(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    """Folds a child of a module, a frozen BatchNorm, into the convolution before it; names of tensors stay.

    Exact up to the rounding of sums. Does nothing if the norm is not frozen. The convolution's output must go to the
    norm and nowhere else.

    Args:
        parent: with an `nn.Conv2d` without bias and the norm as children.
        conv_name, norm_name: their names.
    """
    conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
    if not isinstance(norm, FrozenBatchNorm2d):
        return
    with torch.device("meta"):  # draws no random numbers
        folded = FoldedConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=False,
        )
    folded.weight = conv.weight
    folded.__dict__["norm"] = norm  # not a child: the norm's tensors keep their one name
    setattr(parent, conv_name, folded)
    norm.folded = True
