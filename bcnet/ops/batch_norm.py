"""Synchronized batch normalization (SyncBN) on any device, also where some processes have an empty batch.

Letters: N samples of this process, C channels, H x W.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bcnet.distributed import world_size


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose batch statistics, in training, are those of the joint batch of all processes.

    With DistributedDataParallel, outputs, gradients and running statistics are those of `nn.BatchNorm2d` in one process
    on the joint batch. In one process, and in eval mode, it is `nn.BatchNorm2d`; the state dict is the same.

    `nn.SyncBatchNorm` has no CPU implementation, synchronises host and device in each call, and under autocast gathers
    tensors of unequal dtypes if a process has an empty batch, which is common for RoIs.
    """

    @property
    def is_synchronized(self) -> bool:
        """Whether a call is a collective operation: then every process must make it, with N = 0 too."""
        return self.training and world_size() > 1

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C, H, W] to the same shape and dtype. N = 0 on every process leaves the statistics unchanged."""
        if not self.is_synchronized:
            return super().forward(x)
        values = x.float()
        count = values.new_full((1,), x.numel() // x.shape[1])
        sums = _SumOverProcesses.apply(torch.cat([values.sum((0, 2, 3)), count]))
        count = sums[-1].detach().clamp(min=1.0)
        mean = sums[:-1] / count
        # Two passes: the mean of squares minus the square of the mean would cancel.
        centered = values - mean[:, None, None]
        var = _SumOverProcesses.apply(centered.square().sum((0, 2, 3))) / count
        self._update_statistics(mean.detach(), var.detach() * count / (count - 1).clamp(min=1.0), sums[-1].detach() > 0)
        scale = self.weight * (var + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, unbiased_var: Tensor, is_present: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += is_present
        # Without a momentum, BatchNorm2d's running statistics are the mean over all batches.
        momentum = 1 / self.num_batches_tracked.clamp(min=1) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, is_present.float() * momentum)
        self.running_var.lerp_(unbiased_var, is_present.float() * momentum)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, differentiable: every process' loss depends on every process' tensor."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
