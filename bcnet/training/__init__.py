"""Training: training loop, optimizer, learning-rate schedule, distributed launch, checkpoints and logs."""

from bcnet.training.build import build_trainer
from bcnet.training.interruption import TrainingInterrupted
from bcnet.training.launch import launch
from bcnet.training.step_values import NonFiniteLossError
from bcnet.training.train import evaluate_only, train
from bcnet.training.trainer import Trainer

__all__ = [
    "NonFiniteLossError",
    "Trainer",
    "TrainingInterrupted",
    "build_trainer",
    "evaluate_only",
    "launch",
    "train",
]
