"""Progress bars: on a terminal only, or by the environment variable BCNET_PROGRESS."""

from __future__ import annotations

import os
import sys

from bcnet import distributed


def progress_wanted() -> bool:
    """True on the main process, on a terminal or with BCNET_PROGRESS=1 (0 forbids progress bars)."""
    setting = os.environ.get("BCNET_PROGRESS", "")
    return distributed.is_main_process() and (setting == "1" or (setting != "0" and sys.stderr.isatty()))
