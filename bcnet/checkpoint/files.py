"""Reading and writing `.pth` files."""

from __future__ import annotations

import os
import pickle
import zipfile

import torch


def write_checkpoint(content: dict, path: str) -> None:
    """Writes tensors and plain containers so that `path` is either the old file or the whole new one.

    Raises:
        OSError: the folder is missing, full or not writable; an older file under this name is untouched.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_text(text: str, path: str) -> None:
    """`write_checkpoint` for a small text file."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def read_checkpoint(path: str) -> dict:
    """Reads a `.pth` file into CPU memory, with the unpickler that admits tensors and plain containers alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds anything else than tensors and plain containers, or is no dict.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"checkpoint not found: {path!r}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"checkpoint {path!r} ({os.path.getsize(path)} bytes) cannot be read; it is damaged or holds more than "
            f"tensors and plain containers: {reason}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {path!r} holds a {type(content).__name__}, a dict was expected")
    return content
