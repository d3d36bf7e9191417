"""Locks that keep two processes from writing the same results."""

from __future__ import annotations

from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def lock_file(file: IO, message: str) -> None:
    """Locks an open file until it is closed; without effect on Windows.

    Raises:
        BlockingIOError: another process holds the lock; with the message.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(message) from error
