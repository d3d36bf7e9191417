"""A small model, stream of batches and config that stand in for the real ones, and what a training with them wrote."""

from __future__ import annotations

import json

import torch
from mask_layers import two_layers
from torch import nn

from bcnet.config import get_cfg
from bcnet.structures import Targets
from bcnet.training import Trainer, build_trainer
from bcnet.training.checkpoints import Checkpoints
from bcnet.training.reproducibility import seed_everything


def with_overrides(cfg, overrides):
    """The config with new values, frozen; keys have two underscores for the dot."""
    cfg.merge_from_list([part for key, value in overrides.items() for part in (key.replace("__", "."), value)])
    cfg.freeze()
    return cfg


def toy_config(output_dir, **overrides):
    """A config for four iterations on the CPU, see `with_overrides`."""
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(output_dir)
    cfg.SEED = 3
    cfg.MODEL.DEVICE = "cpu"
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SOLVER.MAX_ITER = 4
    cfg.SOLVER.STEPS = ()
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.LOG_PERIOD = 2
    cfg.SOLVER.CHECKPOINT_PERIOD = 0
    return with_overrides(cfg, overrides)


class ToyModel(nn.Module):
    """Losses with what makes resuming hard: dropout, random draws, and statistics of a BatchNorm."""

    num_classes = 2

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Conv2d(4, 1, 1))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, images, targets):
        values = self.layers(torch.stack(images).float() / 255)
        drawn = torch.rand((), device=values.device)
        occluded = sum(float(t.masks.nonempty("occluder").any()) for t in targets)
        return {
            "loss_mask": (values - drawn).square().mean(),
            "loss_occluder_mask": values.abs().mean() * min(occluded, 1.0),
        }


def toy_targets(with_occluder: bool = True) -> Targets:
    occludee = torch.ones(1, 8, 8, dtype=torch.uint8)
    occluder = torch.ones_like(occludee) if with_occluder else torch.zeros_like(occludee)
    masks = two_layers(occludee, occluder)
    return Targets(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([0]), masks)


def toy_sample(index: int, with_occluder: bool = True) -> dict:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
    return {
        "image": image,
        "targets": toy_targets(with_occluder),
        "image_id": index,
        "file_name": f"image_{index}.jpg",
        "height": 16,
        "width": 16,
    }


class ToyStream:
    """`build_train_loader` for `toy_sample`: the same stream from any iteration on.

    Args:
        on_iteration: called with the iteration before its first batch is given out.
    """

    def __init__(self, *, images: int = 4, accumulate: int = 1, on_iteration=None, with_occluder: bool = True) -> None:
        self.share = images // accumulate
        self.accumulate = accumulate
        self.on_iteration = on_iteration
        self.with_occluder = with_occluder

    def __call__(self, start_iteration: int):
        torch.rand(1)  # starting workers may draw from the global generator
        position = start_iteration * self.share * self.accumulate
        while True:
            if self.on_iteration is not None and position % (self.share * self.accumulate) == 0:
                self.on_iteration(position // (self.share * self.accumulate))
            yield [toy_sample(position + index, self.with_occluder) for index in range(self.share)]
            position += self.share


def toy_trainer(cfg, model, stream=None, evaluate=None, *, resume: bool = False) -> Trainer:
    """A trainer for a toy stream; with `resume` from the last checkpoint in OUTPUT_DIR."""
    stream = stream or ToyStream(accumulate=cfg.SOLVER.ACCUMULATE_STEPS)
    checkpoints = Checkpoints(cfg.OUTPUT_DIR, kept=cfg.SOLVER.CHECKPOINTS_KEPT)
    content = checkpoints.read_last() if resume else None
    loader = stream(content["iteration"] + 1 if content else 0)
    return build_trainer(cfg, model, loader, evaluate, checkpoints=checkpoints, resume_from=content)


def read(path) -> dict:
    return torch.load(path, weights_only=True)


def same(left, right) -> bool:
    """Whether two checkpoint contents are equal to the last bit."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def metrics(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def trained(cfg, stream=None, resume=False, evaluate=None) -> Trainer:
    model = ToyModel()
    seed_everything(cfg.SEED)
    trainer = toy_trainer(cfg, model, stream, evaluate, resume=resume)
    trainer.run()
    return trainer
