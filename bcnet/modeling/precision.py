"""Mixed precision: the autocast dtype of a config, and the autocast context that every run enters."""

from __future__ import annotations

import torch


def autocast_dtype(cfg) -> torch.dtype | None:
    """The lower precision of ``SOLVER.AMP``; None where it is off."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[cfg.SOLVER.AMP.DTYPE]


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """The autocast context of a device; disabled where `dtype` is None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
