"""bcnet: occlusion-aware instance segmentation with overlapping bilayers (BCNet) on Faster R-CNN and FCOS."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bcnet.prediction.predictor import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str):
    # Imported at first use: reading a config or the version should not take the time to import torch.
    if name == "load":
        from bcnet.prediction.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
