"""Command-line errors: invalid input is reported in one line, without a traceback."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from bcnet.failures import traceback_wanted

USER_ERRORS = (OSError, ValueError, KeyError, ImportError)
# Errors of the devices and of libraries, whose messages are for users although their class is a general one.
_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc")


@contextlib.contextmanager
def one_line_errors(
    parser: argparse.ArgumentParser, errors: tuple[type[Exception], ...] = USER_ERRORS
) -> Iterator[None]:
    """Context that exits with status 1 and one message for every error.

    Errors caused by invalid input have their message alone. Memory that does not suffice comes with advice. Any other
    error is unexpected: the message has its class, and how to see where it comes from. With the environment variable
    BCNET_TRACEBACK=1 the error is raised instead.

    Args:
        parser: of the program to exit.
        errors: classes of errors caused by invalid input.

    Raises:
        SystemExit: on an error.
    """
    try:
        yield
    except Exception as error:
        if traceback_wanted():
            raise
        parser.exit(1, f"error: {_message(error, isinstance(error, errors))}\n")


def _message(error: Exception, expected: bool) -> str:
    # The text of a KeyError is the repr of its argument.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    if expected and text:
        return text
    first = text.splitlines()[0] if text else ""
    if isinstance(error, MemoryError) or any(word in text.lower() for word in _MEMORY):
        return (
            f"not enough memory: {first or 'the computer is out of memory'}; smaller batches (SOLVER.IMS_PER_BATCH, "
            "--batch-size) or images (INPUT.MIN_SIZE_TEST, INPUT.MIN_SIZE_TRAIN) need less"
        )
    named = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return f"{named} (unexpected; BCNET_TRACEBACK=1 shows where it comes from, please report it)"
