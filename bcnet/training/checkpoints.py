"""The checkpoints of a run in its output folder."""

from __future__ import annotations

import logging
import os
import re

import torch.distributed as dist

from bcnet.checkpoint import read_checkpoint, write_checkpoint
from bcnet.distributed import world_size
from bcnet.files import write_text

logger = logging.getLogger(__name__)

FINAL_NAME = "model_final.pth"
LAST_NAME = "last_checkpoint"  # detectron2's name: a text file with the newest checkpoint's file name
PERIODIC_NAME = re.compile(r"model_(\d{7,})\.pth")


class Checkpoints:
    """Periodic checkpoints ``model_<iteration>.pth``, of which the newest are kept, and ``model_final.pth``.

    Files of an earlier run in the same folder are not deleted unless this run continues it.
    """

    def __init__(self, output_dir: str, *, kept: int) -> None:
        """
        Args:
            kept: how many periodic checkpoints stay; 0 keeps all.
        """
        self.output_dir = output_dir
        self.kept = kept
        self._periodic: list[str] = []

    def last(self) -> str | None:
        """Path of the newest checkpoint, as the main process sees it; None if there is none."""
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
        """Content of the newest checkpoint, None if there is none; its run is the one that continues.

        Raises:
            FileNotFoundError, ValueError: ``last_checkpoint`` names a file that is not there or not readable,
                or that is no training checkpoint.
        """
        path = self.last()
        if path is None:
            return None
        content = read_checkpoint(path)
        absent = [key for key in ("model", "optimizer", "iteration", "random_states", "seed") if key not in content]
        if absent:
            raise ValueError(f"{path!r} is no training checkpoint: it lacks {', '.join(absent)}")
        found = sorted((int(m[1]), m[0]) for m in map(PERIODIC_NAME.fullmatch, os.listdir(self.output_dir)) if m)
        self._periodic = [name for iteration, name in found if iteration <= content["iteration"]]
        logger.info("Continuing after iteration %d from %s", content["iteration"], path)
        return content

    def write_periodic(self, content: dict, iteration: int) -> str:
        """Writes the training state after an iteration, makes it the last checkpoint, deletes the oldest."""
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
        """Writes ``model_final.pth``: the weights, without what only training needs."""
        path = os.path.join(self.output_dir, FINAL_NAME)
        write_checkpoint(content, path)
        logger.info("Wrote %s", path)
        return path
