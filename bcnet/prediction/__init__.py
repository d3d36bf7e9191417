"""Inference: single images (`load`, `Predictor`), data sets, files, and test-time augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcnet.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from bcnet.prediction.datasets import evaluate, run_inference
    from bcnet.prediction.loading import load
    from bcnet.prediction.predictor import Predictor

__all__ = ["Predictor", "evaluate", "load", "run_inference"]

# All need torch, which predictions with an exported model do without.
__getattr__ = lazy_attributes(
    __name__, {"Predictor": "predictor", "evaluate": "datasets", "load": "loading", "run_inference": "datasets"}
)
