"""Denormal numbers as zeros while training on a CPU, where each costs a hundred times a normal one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Context in which float numbers below 1.2e-38 count as zero on the CPU.

    The softmax of the graph convolution has many of them, whose backward pass takes most of its time. Threads and
    processes that start inside inherit the setting, so enter it before torch starts its own.
    """
    if are_flushed() or not torch.set_flush_denormal(True):
        yield
        return
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def are_flushed() -> bool:
    """Whether this thread counts denormal numbers as zero."""
    return not torch.full((1,), 1e-40).mul(1.0).item()
