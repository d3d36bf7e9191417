"""Descriptions for ``bcnet info``: configs and weights files."""

from __future__ import annotations

import os

from bcnet.checkpoint import local_path, read_checkpoint, weights_of
from bcnet.checkpoint.names import DESCRIPTIONS, UnknownNamesError, recognise
from bcnet.config import load_config
from bcnet.modeling.describe import describe_config


def describe(name: str) -> dict:
    """Describes a file: a config by its suffix, otherwise weights.

    Args:
        name: path of a YAML file or name of a packaged config; or path or URL of weights.

    Raises:
        FileNotFoundError, KeyError, ValueError: as `load_config` or `read_checkpoint`.
    """
    return describe_config(load_config(name)) if name.endswith((".yaml", ".yml")) else describe_weights(name)


def describe_weights(source: str) -> dict:
    """Origin and content of weights, ready for YAML.

    Raises:
        FileNotFoundError, OSError, ValueError: as `local_path`, `read_checkpoint` and `weights_of`.
    """
    path = local_path(source)
    content = read_checkpoint(path)
    state = weights_of(content, source)
    try:
        names = DESCRIPTIONS[recognise(state)]
    except UnknownNamesError:
        names = "not known"
    described = {
        "file": path,
        "size": f"{os.path.getsize(path) / 2**20:.1f} MiB",
        "names of": names,
        "tensors": len(state),
        "values": sum(value.numel() for value in state.values()),
    }
    for key in ("bcnet_version", "iteration", "seed"):
        if content.get(key) is not None:
            described[key.replace("_", " ")] = content[key]
    if content.get("class_names"):
        described["class names"] = list(content["class_names"])
    described["resumable"] = "optimizer" in content
    if isinstance(content.get("config"), str):
        try:
            described["config"] = describe_config(load_config(None, text=content["config"], source="its config"))
        except (KeyError, ValueError) as error:  # config of another version
            described["config"] = f"cannot be read by this version: {error}"
    return described
