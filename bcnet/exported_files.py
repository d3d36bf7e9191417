"""Names of the files that `bcnet export` writes, by their suffix: what runs without weights, and is no weights file."""

from __future__ import annotations

import os
from collections.abc import Sequence

ONNX, OPENVINO, TORCH = "onnx", "openvino", "torch"
SUFFIXES = {ONNX: ".onnx", OPENVINO: ".xml", TORCH: ".pt2"}  # of the formats' files


def format_of(path: str | os.PathLike | None) -> str | None:
    """The format of an exported file by its suffix; None for other files."""
    suffix = os.path.splitext(os.fspath(path or ""))[1].lower()
    return next((name for name, known in SUFFIXES.items() if suffix == known), None)


def refuse_exported(path: str | os.PathLike | None) -> None:
    """Raises ValueError for an exported file, where weights are needed; other files and None pass."""
    if format_of(path) is not None:
        raise ValueError(
            f"{os.fspath(path or '')!r} is an exported model, which bcnet.load and bcnet predict, segment, draw and "
            "demo take; everything else needs the weights that it was exported from"
        )


def exported_file(
    config_file: str | os.PathLike | None, weights: str | os.PathLike | None, opts: Sequence[object] = ()
) -> str | None:
    """The exported file among the arguments of `bcnet.load`, as weights or alone; None if there is none.

    Raises:
        ValueError: a config or config keys beside it, which cannot change it.
    """
    if weights is None:
        config_file, weights = None, config_file
    if weights is None or format_of(weights) is None:
        return None
    for option, given in (("a config file", config_file), ("config keys", opts)):
        if given:
            raise ValueError(f"{option} cannot change {os.fspath(weights)!r}, an exported model; export it anew")
    return os.fspath(weights)
