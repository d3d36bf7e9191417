from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet_log():
    """`train` sends the package's log to files and the console; afterwards it is as before."""
    package = logging.getLogger("bcnet")
    yield
    for handler in list(package.handlers):
        package.removeHandler(handler)
        handler.close()
    package.propagate = True
    package.setLevel(logging.NOTSET)
