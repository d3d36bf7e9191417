"""Training checkpoints: files in the output folder, rotation, resuming, and checks of folder and disk space."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence

import torch
import torch.distributed as dist

from bcnet.checkpoint import read_checkpoint, write_checkpoint
from bcnet.distributed import is_main_process, mean_over_processes, world_size
from bcnet.files import write_text
from bcnet.training.periodic import is_due
from bcnet.training.state import TrainingState, gather_random_states
from bcnet.training.step_values import NonFiniteLossError

logger = logging.getLogger(__name__)

FINAL_NAME = "model_final.pth"
LAST_NAME = "last_checkpoint"  # detectron2's name: a text file with the newest checkpoint's file name
PERIODIC_NAME = re.compile(r"model_(\d{7,})\.pth")


class Checkpoints:
    """Periodic checkpoints ``model_<iteration>.pth`` with rotation, and ``model_final.pth``.

    Files of an earlier run in the same folder are only deleted if this run resumes it.
    """

    def __init__(self, output_dir: str, *, kept: int) -> None:
        """
        Args:
            output_dir: the folder; created with the first file.
            kept: number of periodic checkpoints to keep; 0 keeps all.
        """
        self.output_dir = output_dir
        self.kept = kept
        self._periodic: list[str] = []

    def last(self) -> str | None:
        """Path of the newest checkpoint, as found by the main process; None if there is none."""
        marker, path = os.path.join(self.output_dir, LAST_NAME), None
        if os.path.isfile(marker):
            with open(marker, encoding="utf-8") as file:
                path = os.path.join(self.output_dir, file.read().strip())
        if world_size() > 1:
            shared = [path]
            dist.broadcast_object_list(shared, src=0)
            path = shared[0]
        return path

    def read_last(self) -> dict | None:
        """Content of the newest checkpoint, None if there is none; its run is then resumed.

        Raises:
            FileNotFoundError, ValueError: ``last_checkpoint`` names a file that is missing, unreadable, or not a
                training checkpoint.
        """
        path = self.last()
        if path is None:
            return None
        content = read_checkpoint(path)
        absent = [key for key in ("model", "optimizer", "iteration", "random_states", "seed") if key not in content]
        if absent:
            raise ValueError(f"{path!r} is not a training checkpoint: it lacks {', '.join(absent)}")
        matches = map(PERIODIC_NAME.fullmatch, os.listdir(self.output_dir))
        names = sorted((int(match[1]), match[0]) for match in matches if match)
        self._periodic = [name for iteration, name in names if iteration <= content["iteration"]]
        logger.info("Continuing after iteration %d from %s", content["iteration"], path)
        return content

    def write_periodic(self, content: dict, iteration: int) -> str:
        """Writes the training state after an iteration, marks it as the last checkpoint, and deletes the oldest."""
        name = f"model_{iteration:07d}.pth"
        path = os.path.join(self.output_dir, name)
        write_checkpoint(content, path)
        write_text(name, os.path.join(self.output_dir, LAST_NAME))
        self._periodic = [other for other in self._periodic if other != name] + [name]
        if self.kept > 0:
            for old in self._periodic[: -self.kept]:
                if os.path.exists(os.path.join(self.output_dir, old)):
                    os.remove(os.path.join(self.output_dir, old))
            self._periodic = self._periodic[-self.kept :]
        logger.info("Wrote %s", path)
        return path

    def write_final(self, content: dict) -> str:
        """Writes ``model_final.pth``: the weights, without the training state."""
        path = os.path.join(self.output_dir, FINAL_NAME)
        write_checkpoint(content, path)
        logger.info("Wrote %s", path)
        return path

    def check_folder(self, state: TrainingState, *, max_iter: int, period: int) -> None:
        """Checks, without writing anything, that the folder can be written to and has room for the run's checkpoints.

        Args:
            state: content of the checkpoints.
            max_iter, period: of the run, in iterations.

        Raises:
            ValueError: the folder cannot be created or written to.
            OSError: its disk has no room for one checkpoint and ``model_final.pth``.
        """
        folder = os.path.abspath(self.output_dir)
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
            fault = "cannot be written to" if os.path.isdir(folder) else "is not a folder"
            raise ValueError(f"OUTPUT_DIR is {self.output_dir!r}, and {folder!r} {fault}")
        free, one, final = shutil.disk_usage(folder).free, state.checkpoint_bytes(), state.final_bytes()
        remaining = max_iter - state.next_iteration
        if free < min(remaining, 1) * one + final:
            raise OSError(
                f"OUTPUT_DIR {self.output_dir!r} has {_megabytes(free)} of free disk space; one checkpoint "
                f"({_megabytes(one)}) and {FINAL_NAME} ({_megabytes(final)}) do not fit"
            )
        count = min(remaining, 1) if period <= 0 else -(-remaining // period)
        if self.kept > 0:
            count = min(count, self.kept + 1)  # the oldest is deleted after the new one is complete
        if free < count * one + final:
            logger.warning(
                "OUTPUT_DIR %r has %s of free disk space; %d checkpoints of %s (SOLVER.CHECKPOINT_PERIOD, "
                "SOLVER.CHECKPOINTS_KEPT) and %s (%s) do not fit",
                self.output_dir,
                _megabytes(free),
                count,
                _megabytes(one),
                FINAL_NAME,
                _megabytes(final),
            )


class Checkpointer:
    """Saves a training state to the checkpoints of its run; raises if a parameter is not finite."""

    def __init__(self, checkpoints: Checkpoints, state: TrainingState, *, period: int = 0) -> None:
        """
        Args:
            checkpoints: the files.
            state: what is saved; its current iteration counts as saved.
            period: iterations between two checkpoints; 0 for none between start and end.
        """
        self.checkpoints = checkpoints
        self.state = state
        self.period = period
        self._saved_iteration = state.next_iteration

    def due(self, iteration: int) -> bool:
        return is_due(iteration, self.period)

    def save(self, images: Sequence[str] = ()) -> None:
        """Writes a checkpoint unless this iteration has one. Every process must call it; the main process writes.

        Args:
            images: of the last iteration, for the message.

        Raises:
            NonFiniteLossError: the last step made a parameter infinite or not a number.
        """
        if self._saved_iteration == self.state.next_iteration:
            return
        iteration = self.state.next_iteration - 1
        if names := self.state.non_finite_parameters():
            raise NonFiniteLossError(
                f"the losses of iteration {iteration} are finite, its gradients were not: {len(names)} parameters are "
                f"not finite any more, e.g. {names[0]}; images: {', '.join(images)}. The last good checkpoint is "
                f"{self.checkpoints.last()}"
            )
        random_states = gather_random_states()
        if is_main_process():
            self.checkpoints.write_periodic(self.state.content(random_states), iteration)
        if world_size() > 1:
            # Barrier: no process continues (or exits) before the file is complete.
            mean_over_processes(torch.zeros(1, device=self.state.device)).item()
        self._saved_iteration = self.state.next_iteration

    def write_final(self) -> None:
        """Writes ``model_final.pth``."""
        if is_main_process():
            self.checkpoints.write_final(self.state.final_content())


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
