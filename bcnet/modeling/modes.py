"""Temporary eval mode that restores the mode of every submodule."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Context that restores the mode (training or eval) of each submodule on exit."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        # Not by `train`, which sets all submodules to one mode.
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode within the context."""
    with modes_restored(model):
        model.eval()
        yield
