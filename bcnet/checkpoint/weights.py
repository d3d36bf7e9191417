"""Loading model weights from our own `.pth` files."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from bcnet.checkpoint.files import read_checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeyDifferences:
    """How a file's tensors differ from a model's.

    Attributes:
        missing: keys of the model that the file lacks.
        unexpected: keys of the file that the model lacks.
        reshaped: (key, shape in the file, shape in the model).
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def table(self) -> str:
        """One line per difference."""
        rows = [(key, f"{in_file}", f"{in_model}") for key, in_file, in_model in self.reshaped]
        rows += [(key, "-", "present") for key in self.missing]
        rows += [(key, "present", "-") for key in self.unexpected]
        rows = [("key", "in the file", "in the model"), *rows]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        return "\n".join(f"  {key:<{widths[0]}}  {in_file:<{widths[1]}}  {in_model}" for key, in_file, in_model in rows)


def load_weights(model: nn.Module, path: str, *, strict: bool = True) -> KeyDifferences:
    """Loads the weights of a `.pth` file (a state dict, alone or under ``"model"``) into a model, in place.

    Args:
        model: the model; its tensors keep their device and dtype.
        path: the file.
        strict: whether a missing, unexpected or reshaped key is an error. If not, the differences are
            logged as one table, what matches is loaded and the rest of the model keeps its values.

    Returns:
        KeyDifferences: what did not match.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read; no key matches; or, with `strict`, any key differs (one table
            of all of them, and the model is unchanged).
    """
    content = read_checkpoint(path)
    state = content["model"] if isinstance(content.get("model"), dict) else content
    state = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    own = model.state_dict()
    differences = KeyDifferences(
        missing=tuple(key for key in own if key not in state),
        unexpected=tuple(key for key in state if key not in own),
        reshaped=tuple(
            (key, tuple(value.shape), tuple(own[key].shape))
            for key, value in state.items()
            if key in own and value.shape != own[key].shape
        ),
    )
    reshaped = {key for key, _, _ in differences.reshaped}
    matching = {key: value for key, value in state.items() if key in own and key not in reshaped}
    if not matching:
        raise ValueError(
            f"no tensor of {path!r} ({len(state)} tensors) fits the model ({len(own)} tensors):\n{differences.table()}"
        )
    if differences and strict:
        raise ValueError(f"the weights of {path!r} do not fit the model:\n{differences.table()}")
    if differences:
        logger.warning(
            "%s: %d of the model's %d tensors were loaded; these were not:\n%s",
            path,
            len(matching),
            len(own),
            differences.table(),
        )
    model.load_state_dict(matching, strict=False)
    return differences
