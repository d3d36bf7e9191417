"""One training step: forward and backward of the accumulated batches, clipping, optimizer step, weight averaging.

Letters: G instances of an image.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bcnet.distributed import world_size
from bcnet.maps import OCCLUDER
from bcnet.modeling.precision import autocast
from bcnet.training.solver import LearningRate
from bcnet.training.state import TrainingState


class TrainingStep:
    """Updates a training state by the gradient of one iteration's batches.

    Attributes:
        rate: the learning rate of the last call.
    """

    def __init__(
        self,
        state: TrainingState,
        schedule: LearningRate,
        *,
        amp_dtype: torch.dtype | None = None,
        clip: Callable[[Iterable[nn.Parameter]], None] | None = None,
    ) -> None:
        """
        Args:
            state: with its model on its device. Several processes all start from the weights of rank 0.
            schedule: of the learning rate.
            amp_dtype: precision of autocast; None computes in float32.
            clip: clips the gradients of its parameters in place.
        """
        self.state = state
        self.schedule = schedule
        self.amp_dtype = amp_dtype
        self.clip = clip
        self.rate = 0.0
        self.network = _distributed(state.model, state.device)

    def __call__(self, iteration: int, batches: Sequence[list[dict]]) -> dict[str, Tensor | float]:
        """One step of the optimizer.

        Args:
            iteration: 0..max_iter-1.
            batches: their gradients are accumulated; lists of dicts with "image" (uint8 [3, h, w]) and "targets".

        Returns:
            dict: this process' mean of each loss and of ``total_loss`` over the batches, and its number of
            ``instances`` and ``instances_with_occluder``; scalars, without host-device synchronisation.
        """
        self.rate = self.schedule.apply(self.state.optimizer, iteration)
        values: dict[str, Tensor | float] = {}
        for index, batch in enumerate(batches):
            # DDP exchanges gradients once, in the last backward pass.
            is_last = index + 1 == len(batches)
            with contextlib.nullcontext() if is_last else _no_gradient_exchange(self.network):
                for name, value in self._forward_backward(batch, 1 / len(batches)).items():
                    values[name] = values[name] + value if name in values else value
        self._update()
        return values

    def _forward_backward(self, batch: list[dict], weight: float) -> dict[str, Tensor | float]:
        """Adds `weight` times the gradient of a batch; returns its weighted losses and its counts, detached."""
        device = self.state.device
        images = [record["image"].to(device, non_blocking=True) for record in batch]
        targets = [record["targets"].to(device, non_blocking=True) for record in batch]
        with autocast(device, self.amp_dtype):
            losses: dict[str, Tensor] = self.network(images, targets)
            total = functools.reduce(torch.add, losses.values())
        self.state.scaler.scale(total * weight).backward()
        values: dict[str, Tensor | float] = {name: loss.detach() * weight for name, loss in losses.items()}
        values["total_loss"] = total.detach() * weight
        values["instances"] = float(sum(map(len, targets)))
        # Of the loader's targets, on the CPU: no host-device synchronisation.
        values["instances_with_occluder"] = float(sum(int(r["targets"].masks.nonempty(OCCLUDER).sum()) for r in batch))
        return values

    def _update(self) -> None:
        state = self.state
        if self.clip is not None:
            state.scaler.unscale_(state.optimizer)
            self.clip(state.model.parameters())
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        if state.averaged is not None:
            state.averaged.update_parameters(state.model)


def _no_gradient_exchange(network: nn.Module) -> contextlib.AbstractContextManager:
    return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()


def _distributed(model: nn.Module, device: torch.device) -> nn.Module:
    if world_size() == 1:
        return model
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
