"""Models that come with the package, by name: ``bcnet.load("lite")``."""

from __future__ import annotations

import os

FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "models")
MODELS = {"lite": "lite.safetensors"}  # files in this folder


Name = str | os.PathLike | None


def with_packaged_model(config_file: Name, weights: Name) -> tuple[Name, Name]:
    """Config file and weights as `bcnet.load` takes them, with the file of a packaged model in place of its name.

    Returns:
        The two as they are, or None and the path of the model's weights, which hold its config: where one of them alone
        is a model's name and not the name of an existing file.

    Raises:
        FileNotFoundError: this build of the package has no file of the model.
    """
    names = [os.fspath(name) for name in (config_file, weights) if name is not None]
    if len(names) != 1 or names[0] not in MODELS or os.path.exists(names[0]):
        return config_file, weights
    path = os.path.join(FOLDER, MODELS[names[0]])
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"the model {names[0]!r} is not in this build of bcnet ({path} is missing). Train it with 'bcnet train "
            "--config-file lite/box_prompted_lite0.yaml' (docs/lite.md), or give the path of a weights file"
        )
    return None, path
