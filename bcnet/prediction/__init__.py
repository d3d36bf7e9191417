"""Inference: single images (`load`, `Predictor`), data sets, files, and test-time augmentation."""

from bcnet.prediction.datasets import evaluate, run_inference
from bcnet.prediction.loading import load
from bcnet.prediction.predictor import Predictor

__all__ = ["Predictor", "evaluate", "load", "run_inference"]
