"""Training state: model, optimizer, gradient scaler, averaged weights (EMA), random states and iteration of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import bcnet
from bcnet.distributed import rank, world_size
from bcnet.training.reproducibility import random_state, restore_random_state

logger = logging.getLogger(__name__)


class TrainingState:
    """Everything in a checkpoint, from which a resumed run continues.

    Attributes:
        model: the model that is trained.
        next_iteration: the iterations before it are complete.
        class_names: names of the classes 0..K-1; saved with the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        scaler: torch.amp.GradScaler | None = None,
        averaged: AveragedModel | None = None,
        class_names: Sequence[str] = (),
        seed: int = 0,
        config: str = "",
    ) -> None:
        """
        Args:
            scaler: of the losses, for fp16; None scales nothing.
            averaged: the moving average of the model's weights; if given, it is evaluated and saved as the final model.
            seed: of the run; saved.
            config: the run's config as YAML; saved.
        """
        self.model = model
        self.optimizer = optimizer
        self.device = next(model.parameters()).device
        self.scaler = scaler or torch.amp.GradScaler(self.device.type, enabled=False)
        self.averaged = averaged
        self.class_names = tuple(class_names)
        self.seed = seed
        self.config = config
        self.next_iteration = 0
        self._random_state: dict | None = None

    @property
    def evaluated_model(self) -> nn.Module:
        """The model for evaluation and ``model_final.pth``: with the averaged weights, if there are any."""
        return self.averaged.module if self.averaged is not None else self.model

    def final_content(self) -> dict:
        """Content of ``model_final.pth``: the weights, and what inference needs."""
        return {
            "model": self.evaluated_model.state_dict(),
            "iteration": self.next_iteration - 1,
            "seed": self.seed,
            "config": self.config,
            "class_names": list(self.class_names),
            "bcnet_version": bcnet.__version__,
        }

    def content(self, random_states: Sequence[dict]) -> dict:
        """Content of a checkpoint: only tensors and plain containers, so that loading it is safe.

        Args:
            random_states: of every process, see `gather_random_states`.
        """
        averages = None
        if self.averaged is not None:
            averages = {"n_averaged": int(self.averaged.n_averaged), "live_model": self.model.state_dict()}
        return {
            **self.final_content(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": averages,
            "random_states": list(random_states),
        }

    def load(self, content: Mapping, source: str) -> None:
        """Resumes from a checkpoint's content. Learning rates and weight decays of the optimizer are unchanged.

        Args:
            content: as returned by `content`.
            source: its origin, for messages.

        Raises:
            ValueError: the checkpoint is of another architecture.
        """
        averages = content["ema"]
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        try:
            self.model.load_state_dict(averages["live_model"] if averages else content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"the last checkpoint in {source!r} is of another model: {error}") from error
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)
        if content["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        self._load_averages(content, averages)
        self.class_names = self.class_names or tuple(content.get("class_names", ()))
        self.next_iteration = content["iteration"] + 1
        self._choose_random_state(content["random_states"])

    def _load_averages(self, content: Mapping, averages: Mapping | None) -> None:
        if self.averaged is None:
            return
        if averages:
            self.averaged.module.load_state_dict(content["model"])
            self.averaged.n_averaged.fill_(averages["n_averaged"])
        else:
            logger.warning("The checkpoint has no averaged weights; SOLVER.EMA starts from the current ones")
            self.averaged.module.load_state_dict(self.model.state_dict())

    def _choose_random_state(self, states: Sequence[dict]) -> None:
        if len(states) == world_size():
            self._random_state = states[rank()]
        else:
            logger.warning(
                "The checkpoint is of %d processes, this run has %d: random draws (not the training state) differ from "
                "an uninterrupted run's",
                len(states),
                world_size(),
            )

    def restore_random_state(self) -> None:
        """Restores the random generators of the loaded checkpoint; does nothing without one."""
        if self._random_state is not None:
            restore_random_state(self._random_state)
            self._random_state = None

    def non_finite_parameters(self) -> list[str]:
        """Names of the parameters with an infinity or NaN. Waits for the device."""
        parameters = dict(self.model.named_parameters())
        finite = torch.stack([parameter.detach().isfinite().all() for parameter in parameters.values()]).tolist()
        return [name for name, is_finite in zip(parameters, finite, strict=True) if not is_finite]

    def final_bytes(self) -> int:
        """Estimated size of ``model_final.pth``."""
        return _bytes(self.model.state_dict().values())

    def checkpoint_bytes(self) -> int:
        """Estimated size of a checkpoint, also before the optimizer has created its buffers."""
        defaults = self.optimizer.defaults
        buffers = 2 if "betas" in defaults else int(bool(defaults.get("momentum")))  # per parameter: Adam's, SGD's
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        models = 1 if self.averaged is None else 2
        return models * self.final_bytes() + buffers * _bytes(trained)


def gather_random_states() -> list[dict]:
    """The states of the generators of every process. Every process must call it."""
    if world_size() == 1:
        return [random_state()]
    states: list = [None] * world_size()
    dist.all_gather_object(states, random_state())
    return states


def _bytes(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, Tensor))
