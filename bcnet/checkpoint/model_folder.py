"""Model folders: safetensors weights with a ``config.json`` beside them, as `Predictor.save_pretrained` writes them.

``model.safetensors`` holds the tensors, ``config.json`` the config, the class names and the version of bcnet, and
``README.md`` is the model card. It is also the layout of a repository on the Hugging Face Hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bcnet.files import read_json, write_json

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
CARD_NAME = "README.md"
_VERSION_KEY = "bcnet_version"  # tells our config.json from those of other libraries


def write_config_json(folder: str, config: str, class_names: Sequence[str], version: str) -> None:
    """Writes ``config.json`` into a folder.

    Args:
        folder: made if missing.
        config: YAML text.
        class_names: of the classes 0..K-1; may be empty.
        version: of bcnet.
    """
    content = {
        "library_name": "bcnet",
        _VERSION_KEY: version,
        "class_names": list(class_names),
        "config": yaml.safe_load(config),
    }
    write_json(os.path.join(folder, CONFIG_NAME), content)


def entries_beside(weights_file: str) -> dict[str, Any]:
    """What the ``config.json`` beside a weights file adds to its content: "config" as YAML text, "class_names".

    Empty without such a file, and where it is another library's.

    Raises:
        ValueError: it is not JSON, or its config is not a section; names the file.
    """
    path = os.path.join(os.path.dirname(weights_file), CONFIG_NAME)
    if not os.path.isfile(path):
        return {}
    content = read_json(path)
    if not isinstance(content, Mapping) or _VERSION_KEY not in content:
        return {}
    config = content.get("config")
    if not isinstance(config, Mapping):
        raise ValueError(f"{path!r}: config must be an object of config keys, got {str(config)[:80]}")
    kept = {key: content[key] for key in (_VERSION_KEY, "class_names") if key in content}
    return {**kept, "config": yaml.safe_dump(dict(config))}


def weights_in(folder: str) -> str:
    """The path of the weights in a model folder.

    Raises:
        FileNotFoundError: it has none; says which weights files it has.
    """
    path = os.path.join(folder, WEIGHTS_NAME)
    if os.path.isfile(path):
        return path
    others = sorted(name for name in os.listdir(folder) if name.endswith((".pth", ".safetensors", ".pkl")))
    advice = f"; name one of its weights files: {', '.join(others)}" if others else ""
    raise FileNotFoundError(f"the folder {folder!r} has no {WEIGHTS_NAME}, which save_pretrained writes{advice}")
