"""Graceful shutdown on SIGINT and SIGTERM: training stops after the current iteration, on all processes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from bcnet.distributed import is_main_process, world_size

# One Ctrl-C may arrive twice, from the terminal and from the launcher that forwards it.
SAME_REQUEST_SECONDS = 1.0

_Handler = Callable[[int, FrameType | None], Any] | int | None  # as `signal.signal` takes and returns it


class TrainingInterrupted(Exception):
    """Training was stopped by a signal, after a checkpoint was written.

    Attributes:
        signal_number: the signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    def __reduce__(self):
        return type(self), (self.args[0], self.signal_number)


class Interruption:
    """Context in which the first SIGINT or SIGTERM requests a stop and a second one ends the process.

    A signal to the whole process group may also end the workers of a data loader, and torch raises that error at
    any point of the program, even within an optimizer step. `defer_worker_errors` defers it to `raise_worker_errors`.
    Outside the main thread, where Python allows no signal handlers, signals keep their default effect.

    Attributes:
        signal_number: the signal received by this process or, after `stop_requested` returned True, by any process;
            0 if none.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._since = 0.0
        self._child_ended = False
        self._previous: dict[int, _Handler] = {}
        self._vote: tuple[torch.Tensor, dist.Work] | None = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request_stop)
        return self

    def __exit__(self, exception_type, *_) -> None:
        if self._vote is not None and exception_type is None:
            self._vote[1].wait()
        self._restore()

    def stop_requested(self) -> bool:
        """Whether to stop after this iteration. Every process must call it once per iteration; all get the same answer.

        Several processes exchange their received signals asynchronously (over the CPU's backend, gloo in `launch`), and
        the answer is the result of the previous iteration's exchange.
        """
        if world_size() == 1:
            return self.signal_number > 0
        previous = self._vote
        number = torch.tensor([self.signal_number])
        self._vote = (number, dist.all_reduce(number, dist.ReduceOp.MAX, async_op=True))
        if previous is None:
            return False
        number, exchange = previous
        exchange.wait()
        self.signal_number = self.signal_number or int(number)
        return int(number) > 0

    def defer_worker_errors(self) -> None:
        """Defers torch's errors about ended child processes. To be called after torch has set its SIGCHLD handler."""
        if self._previous and hasattr(signal, "SIGCHLD"):
            self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._note_child)

    def raise_worker_errors(self) -> None:
        """Calls torch's deferred SIGCHLD handler, if a child process has ended.

        Raises:
            RuntimeError: a worker was killed or has failed.
        """
        handler = self._previous.get(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        if self._child_ended and callable(handler):
            self._child_ended = False
            handler(signal.SIGCHLD, None)

    def _note_child(self, _number: int, _frame) -> None:
        self._child_ended = True

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous.clear()

    def _request_stop(self, number: int, _frame) -> None:
        now = time.monotonic()
        if not self.signal_number:
            self.signal_number, self._since = number, now
            if is_main_process():
                # Not through logging, which is not reentrant. Ctrl-C also ends the program that reads a pipe.
                with contextlib.suppress(OSError):
                    os.write(2, b"\nStopping after this iteration, with a checkpoint; once more to stop at once.\n")
        elif now - self._since > SAME_REQUEST_SECONDS:
            self._restore()
            signal.raise_signal(number)
