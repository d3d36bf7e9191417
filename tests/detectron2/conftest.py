"""detectron2's own warnings, which are not ours to cure, are ignored in these tests."""

from __future__ import annotations

import contextlib
import gc
import pathlib
import warnings

import pytest

FOLDER = pathlib.Path(__file__).parent
FILTERS = (
    "ignore::ResourceWarning",  # it leaves files open, and so
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:The given NumPy array is not writable:UserWarning",
    "ignore:.torch.cuda.amp.GradScaler:FutureWarning",
    "ignore:torch.cuda.amp.GradScaler is enabled, but CUDA is not available:UserWarning",
    "ignore:.torch.cuda.amp.autocast:FutureWarning",
    r"ignore:.torch.jit.\w+. is deprecated",
    "ignore::torch.jit.TracerWarning",
    "ignore:pkg_resources is deprecated:UserWarning",
    "ignore:Detected call of `lr_scheduler.step:UserWarning",
    "ignore:torch.utils.checkpoint:UserWarning",
    "ignore:torch.meshgrid:UserWarning",
)

with warnings.catch_warnings(), contextlib.suppress(ImportError):
    # Importing it warns, before any test has a filter.
    warnings.simplefilter("ignore")
    import detectron2.export
    import detectron2.model_zoo  # noqa: F401


@pytest.fixture(autouse=True, scope="module")
def unclosed_files_collected():
    """detectron2's writers leave files open: they are collected while the filters below hold."""
    yield
    gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            for text in FILTERS:
                item.add_marker(pytest.mark.filterwarnings(text))
