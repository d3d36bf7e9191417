"""Failures of single items, which long jobs log, count and survive."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

logger = logging.getLogger(__name__)


def traceback_wanted() -> bool:
    """True with the environment variable BCNET_TRACEBACK=1: errors are shown with where they come from."""
    return os.environ.get("BCNET_TRACEBACK") == "1"


class Failures(dict[str, str]):
    """For each item that failed, its name, and a message that has the name in it."""

    @contextlib.contextmanager
    def survived(self, item: str) -> Iterator[None]:
        """Logs and keeps an error of the block, so that the job goes on.

        OSError passes: where the output cannot be written, no item can succeed.
        """
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            message = str(error) if item in str(error) else f"{item}: {type(error).__name__}: {error}"
            self[item] = message
            logger.warning("%s", message, exc_info=traceback_wanted())
