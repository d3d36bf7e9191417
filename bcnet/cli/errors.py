"""Command-line errors: invalid input is reported in one line, without a traceback."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from bcnet.failures import traceback_wanted

USER_ERRORS = (OSError, ValueError, KeyError, ImportError)


@contextlib.contextmanager
def one_line_errors(
    parser: argparse.ArgumentParser, errors: tuple[type[Exception], ...] = USER_ERRORS
) -> Iterator[None]:
    """Context that exits with status 1 and the error's message for errors caused by invalid input.

    With the environment variable BCNET_TRACEBACK=1 the error is raised instead.

    Args:
        parser: of the program to exit.
        errors: classes of these errors.

    Raises:
        SystemExit: on one of these errors.
    """
    try:
        yield
    except errors as error:
        if traceback_wanted():
            raise
        # The text of a KeyError is the repr of its argument.
        parser.exit(1, f"error: {error.args[0] if isinstance(error, KeyError) and error.args else error}\n")
