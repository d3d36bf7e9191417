"""Periodic callbacks of training: evaluation and TensorBoard pictures, without side effects on the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from bcnet.distributed import is_main_process, world_size
from bcnet.modeling.modes import modes_restored
from bcnet.training.reproducibility import random_state_kept
from bcnet.visualization.training_batches import draw_training_pictures


def is_due(iteration: int, period: int) -> bool:
    """Whether the iteration, 0..max_iter-1, is the last of a period; never with a period of 0."""
    return period > 0 and (iteration + 1) % period == 0


class PeriodicEvaluation:
    """Evaluates a model every `period` iterations, and at the end."""

    def __init__(self, evaluate: Callable[[nn.Module], Mapping[str, float]] | None, *, period: int = 0) -> None:
        """
        Args:
            evaluate: function of the model that returns metrics by name (an empty dict on all but the main process);
                called by all processes. None evaluates nothing.
            period: iterations; 0 evaluates only at the end.
        """
        self.evaluate = evaluate
        self.period = period

    def due(self, iteration: int) -> bool:
        return self.evaluate is not None and is_due(iteration, self.period)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The metrics. Restores the random generators and the modes of the model's submodules."""
        if self.evaluate is None:
            return {}
        if world_size() > 1:
            # Each process updates its own running statistics; all must evaluate with those that are saved.
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)
        with random_state_kept(), modes_restored(model):
            return dict(self.evaluate(model))


class PeriodicPictures:
    """Draws training images, with detections and targets, every `period` iterations on the main process."""

    def __init__(self, *, period: int, image_format: str = "BGR", amp_dtype: torch.dtype | None = None) -> None:
        """
        Args:
            period: iterations; 0 draws none.
            image_format: channel order of the images, "BGR" or "RGB".
            amp_dtype: precision of autocast; None computes in float32.
        """
        self.period = period
        self.image_format = image_format
        self.amp_dtype = amp_dtype

    def due(self, iteration: int) -> bool:
        return is_main_process() and is_due(iteration, self.period)

    def __call__(self, model: nn.Module, batch: Sequence[Mapping], class_names: Sequence[str]) -> list[np.ndarray]:
        """Pictures, uint8 [H, W, 3] RGB. Restores the random generators and the modes of submodules."""
        with random_state_kept(), modes_restored(model):
            return draw_training_pictures(
                model, batch, image_format=self.image_format, class_names=class_names, amp_dtype=self.amp_dtype
            )
