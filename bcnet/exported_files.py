"""Names of the files that `bcnet export` writes, by their suffix: what runs without weights, and is no weights file."""

from __future__ import annotations

import os

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
            f"{os.fspath(path or '')!r} is an exported model: bcnet predict and bcnet.export.ExportedPredictor run it"
        )
