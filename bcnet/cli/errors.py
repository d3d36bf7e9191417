"""Errors of the user's input as one line, not as a traceback."""

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
    """Ends the program with status 1 and the message of an error that names what is wrong with the input.

    With the environment variable BCNET_TRACEBACK=1 the error is raised as it is.

    Args:
        parser: whose program ends.
        errors: the classes of such errors.

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
