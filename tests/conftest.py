"""What every test leaves as it found it."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def logging_as_before():
    """Training and evaluation send the package's log to files and the console; afterwards it is as before."""
    package = logging.getLogger("bcnet")
    level, propagate, handlers = package.level, package.propagate, list(package.handlers)
    yield
    for handler in set(package.handlers) - set(handlers):
        package.removeHandler(handler)
        handler.close()
    package.setLevel(level)
    package.propagate = propagate
