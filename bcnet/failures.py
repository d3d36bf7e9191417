"""Error handling of long jobs: failures of single items are logged and collected, and the job continues."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

logger = logging.getLogger(__name__)


def traceback_wanted() -> bool:
    """True with the environment variable BCNET_TRACEBACK=1: errors are shown with their traceback."""
    return os.environ.get("BCNET_TRACEBACK") == "1"


class Failures(dict[str, str]):
    """Error messages by the name of the item that failed; each message contains the name."""

    @contextlib.contextmanager
    def survived(self, item: str) -> Iterator[None]:
        """Context that logs and records an error instead of raising it, so that the job continues.

        OSError is raised: where the output cannot be written, no item can succeed.
        """
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            message = str(error) if item in str(error) else f"{item}: {type(error).__name__}: {error}"
            self[item] = message
            logger.warning("%s", message, exc_info=traceback_wanted())
