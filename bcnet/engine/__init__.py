"""Training, inference over data sets, and single images."""

from bcnet.engine.inference import evaluate, run_inference
from bcnet.engine.interruption import TrainingInterrupted
from bcnet.engine.launch import launch
from bcnet.engine.predictor import Predictor, load
from bcnet.engine.step_values import NonFiniteLossError
from bcnet.engine.train import evaluate_only, train
from bcnet.engine.trainer import Trainer

__all__ = [
    "NonFiniteLossError",
    "Predictor",
    "Trainer",
    "TrainingInterrupted",
    "evaluate",
    "evaluate_only",
    "launch",
    "load",
    "run_inference",
    "train",
]
