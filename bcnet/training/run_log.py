"""Logging of a run: console, log.txt, metrics.json (JSON lines), TensorBoard, progress bar."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import logging.handlers
import math
import os
import sys
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from bcnet import distributed
from bcnet.progress import progress_wanted
from bcnet.words import counted

logger = logging.getLogger(__name__)

LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_own_handlers: weakref.WeakSet[logging.Handler] = weakref.WeakSet()  # not those of the surrounding program


def set_up_console_logging() -> None:
    """Sends bcnet's log to the console (main process), and buffers it for the file of `set_up_logging`."""
    handlers: list[logging.Handler] = [logging.handlers.MemoryHandler(capacity=10_000)]
    if distributed.is_main_process():
        handlers.append(logging.StreamHandler(sys.stdout))
    _replace_handlers(handlers)


def set_up_logging(output_dir: str) -> None:
    """Sends bcnet's log to the console (main process) and to ``log.txt``, or ``log.txt.rank<n>``, in a folder.

    The file begins with the messages since `set_up_console_logging`. Another call moves the file to another folder;
    handlers of the surrounding program are unchanged.
    """
    os.makedirs(output_dir, exist_ok=True)
    rank = distributed.rank()
    name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
    file = logging.FileHandler(os.path.join(output_dir, name), encoding="utf-8")
    handlers: list[logging.Handler] = [file]
    if rank == 0:
        handlers.append(logging.StreamHandler(sys.stdout))
    for record in _replace_handlers(handlers):
        file.handle(record)


def _replace_handlers(handlers: Sequence[logging.Handler]) -> list[logging.LogRecord]:
    """Replaces this module's handlers of the package's logger; returns the records buffered in memory."""
    package = logging.getLogger("bcnet")
    package.setLevel(logging.DEBUG)
    package.propagate = False
    kept: list[logging.LogRecord] = []
    for handler in [h for h in package.handlers if h in _own_handlers]:
        if isinstance(handler, logging.handlers.MemoryHandler):
            kept += handler.buffer
        package.removeHandler(handler)
        handler.close()
    for handler in handlers:
        handler.setFormatter(logging.Formatter(LINE_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
        _own_handlers.add(handler)
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.INFO)
        package.addHandler(handler)
    return kept


def append_metrics(output_dir: str, record: dict) -> None:
    """Adds one line to ``metrics.json``, which holds one JSON object per line as detectron2's does.

    A value without a JSON representation (nan, the AP of a size without objects) becomes null.
    """
    record = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
    with open(os.path.join(output_dir, "metrics.json"), "a", encoding="utf-8") as file:
        file.write(json.dumps(record, sort_keys=True) + "\n")


class RunLog:
    """Averages values over iterations, and writes them to the log, ``metrics.json``, TensorBoard and the progress bar.

    Use as a context manager, on the main process only.
    """

    def __init__(self, output_dir: str, *, max_iter: int, start_iteration: int, images_per_iteration: int) -> None:
        self.output_dir = output_dir
        self.max_iter = max_iter
        self.start_iteration = start_iteration
        self.images_per_iteration = images_per_iteration
        self._sums: dict[str, float] = {}
        self._count = 0
        self._iteration, self._rate = start_iteration, 0.0
        self._seconds_of_run = 0.0
        self._iterations_of_run = 0
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> RunLog:
        # Imported here: it takes a second, and inference does not use it.
        from torch.utils.tensorboard import SummaryWriter

        self._tensorboard = self._exit.enter_context(SummaryWriter(self.output_dir))
        self._bar = tqdm(
            total=self.max_iter, initial=self.start_iteration, disable=not progress_wanted(), dynamic_ncols=True
        )
        self._exit.enter_context(self._bar)
        if not self._bar.disable:
            self._exit.enter_context(logging_redirect_tqdm([logging.getLogger("bcnet")]))
        first, last = self.start_iteration, self.max_iter - 1
        if first <= last:
            count = counted(self.images_per_iteration, "image")
            logger.info("Training iterations %d to %d, %s each; starting the loaders", first, last, count)
        return self

    def __exit__(self, *exception) -> None:
        self.write()
        self._exit.close()

    def add(self, iteration: int, values: dict[str, float], rate: float) -> None:
        """Adds the values of one iteration; ``"time"`` and ``"data_time"`` in seconds are among them."""
        self._iteration, self._rate = iteration, rate
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if not self._iterations_of_run:
            logger.info(
                "First iteration done in %.1f s, total loss %.4g; %s follow",
                *(values["time"], values["total_loss"]),
                f"{self.max_iter - iteration - 1} more" if self.max_iter - iteration > 1 else "none",
            )
        self._seconds_of_run += values["time"]
        self._iterations_of_run += 1
        self._bar.update()

    def write(self) -> None:
        """Writes the averages since the last call under the last iteration; does nothing without new iterations."""
        if not self._count:
            return
        iteration = self._iteration
        record = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        record["lr"] = self._rate
        record["images_per_second"] = self.images_per_iteration / max(record["time"], 1e-9)
        record["eta_seconds"] = self._seconds_of_run / self._iterations_of_run * (self.max_iter - iteration - 1)
        if torch.cuda.is_available():
            record["max_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
        self.write_record(iteration, record)
        self._bar.set_postfix(loss=f"{record['total_loss']:.4g}", refresh=False)
        logger.info("%s", _line(iteration, record))

    def write_record(self, iteration: int, record: dict[str, float]) -> None:
        """Writes one record to ``metrics.json`` and TensorBoard."""
        append_metrics(self.output_dir, {"iteration": iteration, **record})
        for name, value in record.items():
            if math.isfinite(value):
                self._tensorboard.add_scalar(name, value, iteration)
        self._tensorboard.flush()

    def write_pictures(self, iteration: int, name: str, pictures: Sequence[np.ndarray]) -> None:
        """Writes pictures, uint8 [H, W, 3] RGB, to TensorBoard under ``name/0``, ``name/1``, ..."""
        for index, picture in enumerate(pictures):
            self._tensorboard.add_image(f"{name}/{index}", picture, iteration, dataformats="HWC")
        self._tensorboard.flush()


def _line(iteration: int, record: dict[str, float]) -> str:
    losses = "  ".join(
        f"{name}: {value:.4g}" for name, value in record.items() if name.startswith("loss") or name == "total_loss"
    )
    eta = datetime.timedelta(seconds=int(record["eta_seconds"]))
    line = (
        f"eta: {eta}  iter: {iteration}  {losses}  time: {record['time']:.4f}  data_time: {record['data_time']:.4f}  "
        f"images/s: {record['images_per_second']:.2f}  lr: {record['lr']:.5g}"
    )
    return line + (f"  max_mem: {record['max_mem_mb']:.0f}M" if "max_mem_mb" in record else "")
