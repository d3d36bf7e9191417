"""Reproducibility: random seeds and generator states; command, versions, git state and hardware of a run."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import shlex
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torchvision

import bcnet
from bcnet import distributed
from bcnet.installation import git_state


def seed_everything(seed: int) -> None:
    """Seeds python's, numpy's and torch's generators (all devices) of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict:
    """The states of this process' generators, as tensors and plain containers."""
    numpy_state = np.random.get_state(legacy=False)
    state = {
        "python": random.getstate(),
        "numpy": (
            str(numpy_state["bit_generator"]),
            torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            int(numpy_state["state"]["pos"]),
            int(numpy_state["has_gauss"]),
            float(numpy_state["gauss"]),
        ),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict) -> None:
    """The inverse of `random_state`; a CUDA state is ignored without a GPU."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Context that restores the random generators on exit, so that a run does not depend on draws within it."""
    state = random_state()
    yield
    restore_random_state(state)


def describe_run(seed: int) -> dict:
    """Command, seed, versions, git state and hardware of this run, ready for JSON."""
    return {
        "command": shlex.join([os.path.basename(sys.executable or "python"), *sys.argv]),
        "seed": seed,
        "processes": distributed.world_size(),
        "versions": versions(),
        "git": git_state(),
        "hardware": hardware(),
    }


def summary_of_run(run: Mapping) -> str:
    """`describe_run` in a line."""
    versions, hardware = run["versions"], run["hardware"]
    devices = ", ".join(hardware["gpus"]) or "no GPU"
    threads = f"{hardware['cpu_cores']} CPU cores ({hardware['torch_threads']} torch threads)"
    return f"bcnet {versions['bcnet']}, torch {versions['torch']}, {threads}, {devices}, seed {run['seed']}"


def versions() -> dict[str, str | int | None]:
    """Versions of this package and of the libraries that its numerics depend on."""
    return {
        "bcnet": bcnet.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
    }


def hardware() -> dict:
    """CPU, threads and GPUs of this process."""
    return {
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }
