"""Models that come with the package, by name: ``bcnet.load("lite")``, ``MODEL.WEIGHTS lite``, ``lite-detector``."""

from __future__ import annotations

import difflib
import os

FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "models")
MODELS = {"lite": "lite/box_prompted_lite0.yaml", "lite-detector": "lite/faster_rcnn_lite0.yaml"}  # trained with


def is_packaged_model(name: str | os.PathLike) -> bool:
    """Whether a name stands for a model of the package: an existing file or folder of that name comes first."""
    return os.fspath(name) in MODELS and not os.path.exists(name)


def suggestion(name: str | os.PathLike) -> str:
    """What an error about a missing file ends with where the name is nearly that of a model; else empty."""
    written = os.fspath(name).lower().removesuffix(".safetensors")
    nearest = difflib.get_close_matches(written, MODELS, n=1, cutoff=0.75)
    return f"; did you mean {nearest[0]!r}, a model that comes with bcnet?" if nearest else ""


def packaged_file(name: str) -> str:
    """The path of a packaged model's weights, which hold its config.

    Raises:
        FileNotFoundError: this build of the package has no file of the model.
    """
    path = os.path.join(FOLDER, f"{name}.safetensors")
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"the model {name!r} is not in this build of bcnet ({path} is missing). Train it with 'bcnet train "
            f"--config-file {MODELS[name]}' (docs/lite.md), or give the path of a weights file"
        )
    return path
