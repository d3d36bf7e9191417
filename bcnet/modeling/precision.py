"""Mixed precision: names of precisions, the autocast dtype of a config, and the autocast context of every run."""

from __future__ import annotations

import torch

# Names of precisions, and the autocast dtype of each; None computes in float32.
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_dtype(precision: str) -> torch.dtype | None:
    """The autocast dtype of a precision, None for "fp32".

    Raises:
        ValueError: an unknown name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(map(repr, PRECISIONS))}")
    return PRECISIONS[precision]


def autocast_dtype(cfg) -> torch.dtype | None:
    """The precision of training and of its evaluation, ``SOLVER.AMP``; None where it is off."""
    return precision_dtype(cfg.SOLVER.AMP.DTYPE) if cfg.SOLVER.AMP.ENABLED else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """The autocast context of a device; disabled where `dtype` is None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
