"""Descriptions for ``bcnet info``: the installation, configs and weights files."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

import torch

from bcnet.checkpoint import local_path, read_checkpoint, weights_of
from bcnet.checkpoint.names import DESCRIPTIONS, UnknownNamesError, recognise
from bcnet.config import load_config, packaged_configs
from bcnet.modeling.describe import describe_config
from bcnet.training.reproducibility import git_state, hardware, versions

OPTIONAL = ("pycocotools", "faster-coco-eval", "opencv-python-headless", "detectron2", "supervision")


def describe_installation() -> dict:
    """Versions, devices and packaged configs, ready for YAML."""
    installed = {**versions(), **{name: _version(name) for name in OPTIONAL}}
    described: dict[str, Any] = {"versions": {name: value for name, value in installed.items() if value is not None}}
    described["hardware"] = hardware()
    for index, name in enumerate(described["hardware"]["gpus"]):
        total = torch.cuda.get_device_properties(index).total_memory
        described["hardware"]["gpus"][index] = f"{name}, {total / 2**30:.1f} GiB"
    if git_state() is not None:
        described["git"] = git_state()
    described["configs"] = [name for name in packaged_configs() if not os.path.basename(name).startswith("Base")]
    return described


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


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
