"""SIGINT and SIGTERM as a wish to stop, not as an end in the middle of an iteration."""

from __future__ import annotations

import signal
import threading
import time

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

    Outside the main thread, where python allows no handlers, signals keep their usual effect.

    Attributes:
        signal_number: the signal that came, 0 so far if none.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous.clear()

    def _remember(self, number: int, _frame) -> None:
        now = time.monotonic()
        if not self.signal_number:
            self.signal_number, self._since = number, now
        elif now - self._since > SAME_WISH_SECONDS:
            self._restore()
            signal.raise_signal(number)
