"""Reading and writing weights files (.pth, .safetensors, pickles): no code execution on loading, atomic writes."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Collection, Mapping

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bcnet.checkpoint.model_folder import entries_beside
from bcnet.checkpoint.unpickle import RefusedPickleError, array_of, load_numpy_pickle, numpy_admitted
from bcnet.exported_files import refuse_exported
from bcnet.files import atomic_write

# File headers of torch.save: since torch 1.6 a zip file, before that a pickled magic number.
_TORCH_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_REFUSED_BY_TORCH = (re.compile(r"GLOBAL ([\w.]+)"), re.compile(r"Unsupported ([^\n]+)"))
# First bytes of files that are given for weights by mistake.
_OTHER_FILES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
}
# Keys under which training code saves a model's state dict, and its moving average.
_STATES = ("model", "state_dict", "model_state", "model_state_dict", "module", "network", "blobs")
_AVERAGES = ("ema", "model_ema", "ema_model", "ema_state", "ema_state_dict", "state_dict_ema", "averaged_model")
_WRAPPERS = ("module.", "model.", "ema_model.", "model_ema.", "ema.", "network.", "net.")
_METADATA = "bcnet."  # prefix of our entries in the metadata of a .safetensors file
_LIGHTNING = "pytorch-lightning_version"
_DAMAGED_FOR_TORCH = re.compile(r"(?:WeightsUnpickler error: |\n\n)([^\n]+)")


def write_checkpoint(content: dict, path: str) -> None:
    """Saves tensors and plain containers atomically, with torch.save.

    Raises:
        OSError: the folder is missing, full or not writable; an existing file is unchanged.
    """
    with atomic_write(path, "wb") as file:
        torch.save(content, file)


def write_weights(state: Mapping[str, Tensor], path: str, *, extra: Mapping | None = None) -> None:
    """Writes a state dict as ``.pth`` (under "model", as detectron2 reads it) or ``.safetensors``, atomically.

    Args:
        state: tensors by name.
        path: the file; its suffix decides.
        extra: further entries, such as "config" and "class_names"; of a ``.safetensors`` file they are texts in its
            metadata, as JSON.

    Raises:
        ValueError: another suffix.
        OSError: as `write_checkpoint`.
    """
    check_output(path)
    if path.endswith(".safetensors"):
        # Separate, contiguous tensors: safetensors rejects views of shared memory.
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        metadata = {_METADATA + key: json.dumps(value) for key, value in (extra or {}).items()}
        content = safetensors.torch.save(tensors, metadata={"format": "pt", **metadata})
        with atomic_write(path, "wb") as file:
            file.write(content)
    else:
        write_checkpoint({"model": dict(state), **(extra or {})}, path)


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a state dict in float16, half the size; loading them into a model makes them float32 again.

    A tensor with a value beyond float16's range (65504; the variances of a BatchNorm may be) stays as it is, and so do
    integers.
    """
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    return {name: half if bool(half.isfinite().all()) else state[name] for name, half in halves.items()}


def check_output(path: str) -> None:
    """Raises ValueError unless `write_weights` can write to a file of this name."""
    if not path.endswith((".pth", ".safetensors")):
        raise ValueError(f"weights are written as .pth or .safetensors, got {path!r}")


def read_checkpoint(path: str) -> dict:
    """Reads a weights file into CPU memory; the format is detected from the first bytes, not from the name.

    ``.pth`` files of torch go through ``weights_only=True`` (numpy's numbers and arrays through our own stand-ins),
    pickles of numpy arrays through `load_numpy_pickle`; ``.safetensors`` files contain no code.

    Returns:
        dict: the file's content; of ``.safetensors`` {"model": its tensors} and what `write_weights` put beside them,
        or, of a file without, what is in the ``config.json`` of its model folder.
        Numpy arrays at the top level and one level below are tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is corrupt, contains objects other than tensors and plain containers, is not a dict, or is
            an exported model.
    """
    refuse_exported(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"checkpoint not found: {path!r}")
    with open(path, "rb") as file:
        start = file.read(32)
    described = f"checkpoint {path!r} ({os.path.getsize(path)} bytes)"
    if not start:
        raise ValueError(f"{described} is empty")
    if start.lstrip().startswith(b"<"):
        raise ValueError(f"{described} is a web page, not a model file; download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{described} is a Git LFS pointer, not a model file; run `git lfs pull`")
    for header, kind in _OTHER_FILES.items():
        if start.startswith(header):
            raise ValueError(f"{described} is {kind}, not a weights file")
    if start.startswith((_TORCH_ZIP, _TORCH_LEGACY)):
        content = _read_torch(path, described)
    elif start[8:9] == b"{":  # after the header's length in 8 bytes
        content = _read_safetensors(path, described)
    else:
        content = _read_pickle(path, described)
    if not isinstance(content, dict):
        raise ValueError(f"{described} holds a {type(content).__name__}, a dict was expected")
    return content


def _read_torch(path: str, described: str) -> object:
    try:
        with numpy_admitted():
            return _with_tensors(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        # torch's message begins with the advice to set weights_only=False, which would execute code.
        for pattern in _REFUSED_BY_TORCH:
            if refused := pattern.search(str(error)):
                raise _refusal(described, refused[1]) from error
        damaged = _DAMAGED_FOR_TORCH.search(str(error))
        raise _damage(described, damaged[1] if damaged else type(error).__name__) from error
    except Exception as error:  # a corrupt archive may raise any exception
        raise _damage(described, error) from error


def _read_safetensors(path: str, described: str) -> dict:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        extra = {key.removeprefix(_METADATA): json.loads(v) for key, v in metadata.items() if key.startswith(_METADATA)}
        state = safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damage(described, error) from error
    return {**(extra or entries_beside(path)), "model": state}


def _read_pickle(path: str, described: str) -> object:
    try:
        with open(path, "rb") as file:
            return _with_tensors(load_numpy_pickle(file))
    except RefusedPickleError as error:
        raise _refusal(described, str(error)) from error
    except Exception as error:  # a corrupt pickle may raise any exception
        raise _damage(described, error) from error


def _with_tensors(content: object) -> object:
    """The content with numpy arrays at the top level and one level below as tensors."""
    if not isinstance(content, dict):
        return content
    return {
        key: {k: _tensor(v) for k, v in value.items()} if type(value) is dict else _tensor(value)
        for key, value in content.items()
    }


def _tensor(value: object) -> object:
    array = array_of(value)
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def _refusal(described: str, what: str) -> ValueError:
    return ValueError(
        f"{described} was refused, and nothing in it was executed: it holds {what}, and only tensors, numpy arrays "
        "and plain containers are admitted"
    )


def _damage(described: str, error: Exception | str) -> ValueError:
    text = str(error).strip() or type(error).__name__
    reason = text.splitlines()[0].split(". ")[0]
    return ValueError(f"{described} cannot be read, it is truncated, corrupt or not a weights file: {reason}")


def weights_of(content: Mapping, source: str) -> dict[str, Tensor]:
    """The state dict in a file's content, under any of the usual keys, without the prefixes of wrappers.

    Searched, also nested, are the keys `_STATES`, then `_AVERAGES` (for a file that has only the exponential moving
    average); otherwise the content itself is the state dict. Prefixes of wrappers are removed from the names:
    DistributedDataParallel's "module.", torch.compile's "_orig_mod." (anywhere), and "model." and the like of a
    Lightning module.

    Raises:
        ValueError: it contains no tensor; lists its keys.
    """
    tensors = _find_state(content)
    if not tensors:
        inner = next((content[name] for name in _STATES if isinstance(content.get(name), Mapping)), content)
        names = ", ".join(map(repr, list(inner)[:8])) or "nothing"
        raise ValueError(f"{source!r} holds no weights; it holds {names}")
    tensors.pop("n_averaged", None)  # AveragedModel's count of updates
    tensors = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    some_suffice = _LIGHTNING in content
    while (prefix := _wrapper(tensors, some_suffice)) is not None:
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        some_suffice = False
    return tensors


def _find_state(content: Mapping) -> dict[str, Tensor]:
    for name in (*_STATES, *_AVERAGES):
        if isinstance(content.get(name), Mapping) and (state := _find_state(content[name])):
            return state
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _wrapper(keys: Collection[str], some_suffice: bool) -> str | None:
    """The common prefix of the names of a model that was saved inside another module.

    Args:
        some_suffice: not all names need the prefix: a Lightning module may have other tensors too.
    """
    for prefix in _WRAPPERS:
        have_it = [key.startswith(prefix) for key in keys]
        if all(have_it) or (some_suffice and any(have_it)):
            return prefix
    return None


def class_names_of(content: Mapping, source: str) -> tuple[str, ...]:
    """The names of the classes 0..K-1 in a weights file; empty without them.

    Raises:
        ValueError: the value of "class_names" is not a list of strings.
    """
    names = content.get("class_names") or ()
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{source!r}: class_names must be a list of strings, got {str(names)[:80]}")
    return tuple(names)
