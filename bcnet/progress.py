"""Progress of long jobs: bars on a terminal, elsewhere log lines; BCNET_PROGRESS=1 or 0 forces or forbids bars."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from types import TracebackType

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0


def _is_main_process() -> bool:
    # There is no process group before torch is imported, which few commands do for its sake alone.
    return "torch" not in sys.modules or importlib.import_module("bcnet.distributed").is_main_process()


def progress_wanted() -> bool:
    """True on the main process, on a terminal or with BCNET_PROGRESS=1 (0 forbids progress bars)."""
    setting = os.environ.get("BCNET_PROGRESS", "")
    return _is_main_process() and (setting == "1" or (setting != "0" and sys.stderr.isatty()))


class Progress:
    """A progress bar, or where there is no terminal a line in the log every 15 seconds; a context manager.

    Args:
        total: number of items of this process.
        description: what is done to them.
        unit: of the items.
    """

    def __init__(self, total: int, description: str, unit: str = "img") -> None:
        self._bar = tqdm(total=total, desc=description, unit=unit, disable=not progress_wanted())
        self._logs = self._bar.disable and _is_main_process()
        self.total, self.description, self.unit = total, description, unit
        self.done = 0
        self._started = self._last = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Counts items that are done."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._logs and now - self._last >= SECONDS_BETWEEN_LINES and self.done < self.total:
            self._last = now
            left = (now - self._started) / self.done * (self.total - self.done)
            logger.info(
                "%s: %d of %d %s, about %.0f s left", *(self.description, self.done, self.total, self.unit, left)
            )

    def __enter__(self) -> Progress:
        if self._logs:
            logger.info("%s: %d %s", self.description, self.total, self.unit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
