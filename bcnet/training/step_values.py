"""Losses and counts of an iteration: asynchronous copy to the host, mean over processes, check for NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from bcnet.distributed import mean_over_processes, rank, world_size


class NonFiniteLossError(FloatingPointError):
    """A loss, or a parameter after the step, is infinite or not a number."""


@dataclass
class StepValues:
    """Values of one iteration during their asynchronous copy from the device.

    Attributes:
        iteration: 0..max_iter-1.
        images: names of the images that this process trained on, for messages.
        rate: the learning rate.
        seconds: wall-clock time of the iteration in this process; set at its end.
    """

    iteration: int
    images: Sequence[str]
    rate: float
    _names: tuple[str, ...]
    _local: Tensor
    _mean: Tensor
    _arrived: torch.cuda.Event | None
    seconds: float = 0.0

    @classmethod
    def send(
        cls, values: Mapping[str, Tensor | float], *, iteration: int, images: Sequence[str], rate: float
    ) -> StepValues:
        """Starts averaging over the processes and copying to the host. Every process must call it.

        Args:
            values: scalars by name, at least one of them a tensor; the same names on every process.
        """
        device = next(value.device for value in values.values() if isinstance(value, Tensor))
        # A number is filled in on the device: copying it from pageable memory could synchronise.
        local = torch.stack(
            [
                value.detach().float() if isinstance(value, Tensor) else torch.full((), value, device=device)
                for value in values.values()
            ]
        )
        mean, arrived = mean_over_processes(local), None
        if device.type == "cuda":
            host = torch.empty(mean.shape, dtype=mean.dtype, pin_memory=True)
            host.copy_(mean, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            mean = host
        return cls(iteration, images, rate, tuple(values), local, mean, arrived)

    def read(self) -> dict[str, float]:
        """The means over the processes by name; waits until they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._mean.tolist(), strict=True))

    def require_finite(self) -> None:
        """Raises NonFiniteLossError, the same on every process, if a value of any process is not finite."""
        if all(math.isfinite(value) for value in self.read().values()):
            return
        mine = {
            name: value
            for name, value in zip(self._names, self._local.tolist(), strict=True)
            if not math.isfinite(value)
        }
        faults: list = [(rank(), mine, list(self.images))]
        if world_size() > 1:
            faults = [None] * world_size()
            dist.all_gather_object(faults, (rank(), mine, list(self.images)))
        lines = [f"the loss is not finite in iteration {self.iteration} (learning rate {self.rate:.4g}):"]
        for process, losses, images in faults:
            if losses:
                values = ", ".join(f"{name} = {value}" for name, value in losses.items())
                lines.append(f"  process {process}: {values}; images: {', '.join(images)}")
        lines.append(
            "A lower SOLVER.BASE_LR, a longer warm-up or SOLVER.CLIP_GRADIENTS often helps; see the images too."
        )
        raise NonFiniteLossError("\n".join(lines))


def describe_images(batch: Sequence[Mapping]) -> list[str]:
    """File names and ids of the images of a batch, for messages."""
    return [f"{record.get('file_name', '?')} (id {record.get('image_id', '?')})" for record in batch]
