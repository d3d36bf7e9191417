"""Versions, GPUs and git state of the installation, read without importing torch where there is no GPU to ask about."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import runpy
import subprocess
from typing import Any

import bcnet

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pycocotools",
    "faster-coco-eval",
    "opencv-python-headless",
    "detectron2",
    "supervision",
)
# NVIDIA's driver, the same inside of WSL, AMD's driver.
_GPU_DRIVERS = ("/proc/driver/nvidia/version", "/dev/dxg", "/dev/kfd")


def describe_installation() -> dict[str, Any]:
    """Versions of the packages that are installed, CPU, GPUs and git state, ready for YAML."""
    versions = {
        "bcnet": bcnet.__version__,
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name)) is not None},
    }
    hardware: dict[str, Any] = {"platform": platform.platform(), "cpu_cores": os.cpu_count(), "gpus": []}
    build = _torch_build()
    if build:
        versions["torch"] = build["__version__"]  # with its build, such as +cpu
        if toolkit := build.get("cuda") or build.get("hip"):
            versions["cuda" if build.get("cuda") else "hip"] = toolkit
            hardware["gpus"] = _gpus()
    described = {"versions": versions, "hardware": hardware}
    return described if (state := git_state()) is None else described | {"git": state}


def git_state() -> dict | None:
    """Commit of the checkout that holds this package and whether it was changed; None outside a checkout."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(bcnet.__file__)))
    # A package installed inside somebody else's repository must not report that repository's commit.
    if not os.path.exists(os.path.join(root, ".git")):
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": changed}


def _git(root: str, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_build() -> dict[str, Any]:
    """The names of `torch.version`, which imports nothing; empty without torch."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.origin:
        return {}
    file = os.path.join(os.path.dirname(found.origin), "version.py")
    return runpy.run_path(file) if os.path.isfile(file) else {}


def _gpus() -> list[str]:
    """Names and memory of the GPUs that torch can use, which it alone knows."""
    if not any(map(os.path.exists, _GPU_DRIVERS)):
        return []
    import torch

    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB" for gpu in properties]
