"""Batch normalization whose statistics only training changes, and synchronized batch normalization on any device.

Letters: N samples of this process, C channels, H x W.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from bcnet.distributed import world_size


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that keeps its running statistics where no gradient is wanted.

    In training mode under `torch.no_grad`, as for a validation loss, it normalises by the batch's statistics and leaves
    its own unchanged. Who collects statistics without gradients changes the momentum (fvcore's and detectron2's
    PreciseBN, `torch.optim.swa_utils.update_bn`): then they are updated as ever.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._own_momentum = self.momentum

    @property
    def is_learning(self) -> bool:
        """Whether a forward pass updates the running statistics."""
        return self.training and (torch.is_grad_enabled() or self.momentum != self._own_momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C, H, W] to the same shape and dtype."""
        if self.training and not self.is_learning:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        mean, variance = self.running_mean, self.running_var
        if not self.training and torch.compiler.is_compiling() and mean is not None and variance is not None:
            # torch's operator asks whether N is 0, which torch.export does not know of the RoIs.
            scale = self.weight * (variance + self.eps).rsqrt()
            return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        return super().forward(x)


class SyncBatchNorm2d(BatchNorm2d):
    """BatchNorm2d whose batch statistics, in training, are those of the joint batch of all processes.

    With DistributedDataParallel, outputs, gradients and running statistics are those of `nn.BatchNorm2d` in one process
    on the joint batch. In one process, and in eval mode, it is `nn.BatchNorm2d`; the state dict is the same.

    `nn.SyncBatchNorm` has no CPU implementation, synchronises host and device in each call, and under autocast gathers
    tensors of unequal dtypes if a process has an empty batch, which is common for RoIs.
    """

    @property
    def is_synchronized(self) -> bool:
        """Whether a call is a collective operation: then every process must make it, with N = 0 too."""
        return self.is_learning and world_size() > 1

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
