"""Models that come with the package, by name: ``bcnet.load("lite")``, ``MODEL.WEIGHTS lite``, ``lite-detector``."""

from __future__ import annotations

import os

FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "models")
MODELS = {"lite": "lite/box_prompted_lite0.yaml", "lite-detector": "lite/faster_rcnn_lite0.yaml"}  # trained with


def is_packaged_model(name: str | os.PathLike) -> bool:
    """Whether a name stands for a model of the package: an existing file or folder of that name comes first."""
    return os.fspath(name) in MODELS and not os.path.exists(name)


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
