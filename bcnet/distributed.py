"""Process group helpers: rank, world size, shared seed, means over processes; a single process needs no group."""

from __future__ import annotations

import secrets
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def world_size() -> int:
    """Number of processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process' rank in the default group; 0 without one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main_process() -> bool:
    """True on rank 0: the process that logs and writes files."""
    return rank() == 0


def shared_seed(seed: int) -> int:
    """The seed itself, or for a negative one a random seed, the same on every process. Every process must call it."""
    if seed >= 0:
        return seed
    drawn = [secrets.randbelow(2**31)]
    if world_size() > 1:
        dist.broadcast_object_list(drawn, src=0)
    return drawn[0]


@torch.no_grad()
def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Mean of a float tensor over all processes (a new tensor on its device; no gradient).

    A collective operation: every process must call it equally often.
    """
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
        value /= world_size()
    return value


def loss_normalizer(value: torch.Tensor) -> torch.Tensor:
    """What a sum of losses is divided by: the mean over all processes of this process' float tensor, without gradient.

    The gradient averaged by DDP then equals that of a single process on the joint batch. Where no gradient is wanted
    (`torch.no_grad`, as for a validation loss) it is this process' own value, without waiting for other processes,
    which may not take part.
    """
    return mean_over_processes(value) if torch.is_grad_enabled() else value.detach().clone()


def gather_on_main_process(value: T) -> list[T]:
    """All processes' values, which can be pickled, by rank; empty but on rank 0. Every process must call it.

    Over gloo, because NCCL would copy them through GPU memory.
    """
    if world_size() == 1:
        return [value]
    gloo = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    group = gloo if isinstance(gloo, dist.ProcessGroup) else None  # every process is a member
    values = [value] * world_size() if is_main_process() else None
    dist.gather_object(value, values, dst=0, group=group)
    if group is not None:
        dist.destroy_process_group(group)
    return values or []
