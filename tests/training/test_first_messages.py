"""What a run says from its first second on, and what goes to the file alone."""

from __future__ import annotations

import json
import logging

import yaml
from torch import nn
from training_toys import ToyModel, toy_config, toy_trainer

from bcnet import progress
from bcnet.config import load_config
from bcnet.ops.frozen_batch_norm import FrozenBatchNorm2d
from bcnet.progress import Progress
from bcnet.training.run_log import set_up_logging
from bcnet.training.train import _warn_of_frozen_initialisation, record_run


def test_the_first_iteration_is_said_at_once(tmp_path, caplog):
    caplog.set_level("INFO", logger="bcnet")
    toy_trainer(toy_config(tmp_path, SOLVER__LOG_PERIOD=100), ToyModel()).run()
    said = [record.getMessage() for record in caplog.records if record.name == "bcnet.training.run_log"]
    assert said[0].startswith("Training iterations 0 to 3, 4 images each")
    assert said[1].startswith("First iteration done in ") and said[1].endswith("; 3 more follow")
    assert len(said) == 3  # and the averages at the end, which include the first one
    assert yaml.safe_load((tmp_path / "metrics.json").read_text())["iteration"] == 3


def test_the_averages_come_before_the_evaluation(tmp_path, caplog):
    caplog.set_level("INFO")

    def evaluation(model):
        logging.getLogger("bcnet.evaluation").info("the tables")
        return {"AP": 1.0}

    toy_trainer(toy_config(tmp_path, SOLVER__LOG_PERIOD=100), ToyModel(), evaluate=evaluation).run()
    said = [record.getMessage() for record in caplog.records]
    assert said[-1] == "the tables" and [line for line in said if line.startswith("eta: ")]
    metrics = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert "total_loss" in metrics[0] and metrics[1] == {"AP": 1.0, "iteration": 3}


def test_the_console_has_what_differs_and_the_file_has_all(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("SOLVER:\n  BASE_LR: 0.5\n")
    (tmp_path / "own.yaml").write_text("_BASE_: base.yaml\nSOLVER:\n  MAX_ITER: 7\n")
    output = tmp_path / "out"
    cfg = load_config(str(tmp_path / "own.yaml"), ["OUTPUT_DIR", str(output), "SEED", 3])
    set_up_logging(str(output))
    record_run(cfg)
    shown, logged = capsys.readouterr().out, (output / "log.txt").read_text()
    assert f"  OUTPUT_DIR: {output}\n  SEED: 3\n" in shown and "MAX_ITER" not in shown  # what the file sets
    assert "BASE_LR" not in shown and "torchvision" not in shown and "torch " in shown
    assert len(shown.splitlines()) < 10
    assert (
        f"{output}\n  SEED: 3\n  SOLVER.MAX_ITER: 7\n" in logged
        and "BASE_LR: 0.5" in logged
        and "torchvision: " in logged
    )
    assert yaml.safe_load((output / "config.yaml").read_text())["SOLVER"]["BASE_LR"] == 0.5


def test_without_a_terminal_progress_is_logged(monkeypatch, caplog):
    caplog.set_level("INFO", logger="bcnet")
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setenv("BCNET_PROGRESS", "0")
    with Progress(4, "Evaluating scenes", "images") as bar:
        for _ in range(4):
            bar.update()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["Evaluating scenes: 4 images", "Evaluating scenes: 2 of 4 images, about 20 s left"]
    caplog.clear()
    monkeypatch.setenv("BCNET_PROGRESS", "1")
    with Progress(2, "Evaluating scenes") as bar:
        bar.update(2)
    assert not caplog.records


def test_frozen_layers_without_weights_are_pointed_out(caplog):
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4), nn.Conv2d(4, 4, 1))
    model.backbone[0].requires_grad_(False)
    _warn_of_frozen_initialisation(model)
    assert "2 frozen tensors (MODEL.BACKBONE.FREEZE_AT) and 1 frozen BatchNorm layers" in caplog.text
    caplog.clear()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    _warn_of_frozen_initialisation(model)
    _warn_of_frozen_initialisation(ToyModel())
    assert not caplog.text
