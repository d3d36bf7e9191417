"""SIGINT and SIGTERM as a wish to stop, not as an end in the middle of an iteration."""

from __future__ import annotations

import os
import signal
import threading
import time

from bcnet.distributed import is_main_process

# One Ctrl-C may arrive twice, from the terminal and from the launcher that passes it on.
SAME_WISH_SECONDS = 1.0


class TrainingInterrupted(Exception):
    """Training stopped at the user's wish, with everything saved.

    Attributes:
        signal_number: the signal that asked for it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    def __reduce__(self):
        return type(self), (self.args[0], self.signal_number)


class Interruption:
    """Context in which the first SIGINT or SIGTERM is remembered and a second one ends the process.

    A signal to the whole process group may also end the workers of a data loader, and torch raises that error
    wherever the program happens to be, be it in the middle of an optimizer step. `defer_worker_errors` makes it
    wait for `raise_worker_errors`. Outside the main thread, where python allows no handlers, signals keep
    their usual effect.

    Attributes:
        signal_number: the signal that came, 0 so far if none.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._since = 0.0
        self._child_ended = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def defer_worker_errors(self) -> None:
        """From now on the end of a child process is noted, no more. To be called when torch's handler is in place."""
        if self._previous and hasattr(signal, "SIGCHLD"):
            self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._note_child)

    def raise_worker_errors(self) -> None:
        """Lets torch look at its workers now, if a child process has ended.

        Raises:
            RuntimeError: a worker was killed or has failed.
        """
        handler = self._previous.get(getattr(signal, "SIGCHLD", None))
        if self._child_ended and callable(handler):
            self._child_ended = False
            handler(signal.SIGCHLD, None)

    def _note_child(self, _number: int, _frame) -> None:
        self._child_ended = True

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous.clear()

    def _remember(self, number: int, _frame) -> None:
        now = time.monotonic()
        if not self.signal_number:
            self.signal_number, self._since = number, now
            if is_main_process():
                # Not through logging: the program may be inside it right now.
                os.write(2, b"\nStopping after this iteration, with a checkpoint; once more to stop at once.\n")
        elif now - self._since > SAME_WISH_SECONDS:
            self._restore()
            signal.raise_signal(number)
