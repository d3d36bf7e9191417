"""Commands that forgive: weights alone, config keys after inputs, quiet unless asked, one line for every error."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import small_config, write_small_data_set

from bcnet.checkpoint import write_checkpoint
from bcnet.cli import main
from bcnet.cli import train_processes as command_line
from bcnet.cli.arguments import parse_with_keys
from bcnet.cli.errors import one_line_errors
from bcnet.modeling import build_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights with their config, as training leaves them, and a data set."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    data_set = write_small_data_set(folder / "data", images=2)
    cfg = small_config(MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0, DATASETS__TEST=(data_set,), OUTPUT_DIR=str(folder))
    content = {"model": build_model(cfg).state_dict(), "config": cfg.dump(), "class_names": ["cup", "plate", "fork"]}
    write_checkpoint(content, str(folder / "model_final.pth"))
    return folder


def test_weights_are_evaluated_with_their_own_config(trained, capsys):
    weights, spec = str(trained / "model_final.pth"), f"coco:{trained}/data/annotations.json:{trained}/data/images"
    main(["evaluate", "--weights", weights, "--dataset", spec, "--metrics", "bbox", "MODEL.COMPILE", "False"])
    (metrics,) = (trained / "inference").glob("*/metrics.json")
    assert json.loads(metrics.read_text())["images"] == 2
    assert "Evaluating coco:" in capsys.readouterr().out


def test_an_evaluation_without_config_takes_that_of_the_weights(trained, monkeypatch):
    seen = []
    monkeypatch.setattr(command_line, "evaluate_only", lambda cfg, resume: seen.append(cfg))
    weights = str(trained / "model_final.pth")
    command_line.run("", ["MODEL.WEIGHTS", weights, "SEED", "9"], True, False)
    (cfg,) = seen
    assert cfg.MODEL.FPN.OUT_CHANNELS == 32
    assert (cfg.MODEL.WEIGHTS, cfg.SEED, cfg.MODEL.COMPILE) == (weights, 9, False)


def parsed(*words):
    parser = argparse.ArgumentParser(prog="bcnet")
    parser.add_argument("--input", nargs="+")
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    args = parse_with_keys(parser, words, "input")
    return args.input, args.opts


def test_config_keys_may_follow_the_inputs():
    assert parsed("--input", "photos/", "MODEL.DEVICE", "cpu") == (["photos/"], ["MODEL.DEVICE", "cpu"])
    assert parsed("--input", "a.jpg", "B.JPG", "TEST.AUG.ENABLED=True") == (
        ["a.jpg", "B.JPG"],
        ["TEST.AUG.ENABLED=True"],
    )
    assert parsed("--input", "IMG.1.jpg", "SEED", "3") == (["IMG.1.jpg"], ["SEED", "3"])
    assert parsed() == (None, [])
    with pytest.raises(SystemExit):
        parsed("--input", "MODEL.DEVICE", "cpu")


def test_prediction_is_quiet_unless_asked(trained, tmp_path):
    command = [sys.executable, "-m", "bcnet", "predict", "--weights", str(trained / "model_final.pth")]
    command += ["--input", str(trained / "data/images/0.png"), "--pictures", str(tmp_path / "drawn")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    shown = subprocess.run([*command, "-v"], capture_output=True, text=True, check=True, env=env)
    assert "tensors loaded" in shown.stderr and shown.stdout.endswith(f"{tmp_path}/drawn/\n")
    main([*command[3:]])
    assert sorted(os.listdir(tmp_path / "drawn")) == ["0_detections.jpg", "predictions.json"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("no such file"), "error: no such file\n"),
        (KeyError("unknown key"), "error: unknown key\n"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
            "error: not enough memory: CUDA out of memory",
        ),
        (MemoryError(), "error: not enough memory: the computer is out of memory; smaller batches"),
        (
            IndexError("list index out of range"),
            "error: IndexError: list index out of range (unexpected; BCNET_TRACEBACK=1",
        ),
        (AssertionError(), "error: AssertionError (unexpected; "),
    ],
)
def test_every_error_is_one_line(error, message, capsys, monkeypatch):
    parser = argparse.ArgumentParser(prog="bcnet")
    with pytest.raises(SystemExit) as caught, one_line_errors(parser):
        raise error
    said = capsys.readouterr().err
    assert caught.value.code == 1 and said.startswith(message) and said.count("\n") == 1
    monkeypatch.setenv("BCNET_TRACEBACK", "1")
    with pytest.raises(type(error)), one_line_errors(parser):
        raise error


def test_missing_synthetic_scenes_name_the_command_that_makes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "--config-file", "quick/bcnet_faster_rcnn.yaml", "MODEL.DEVICE", "cpu"])
    said = capsys.readouterr().err
    assert "bcnet data scenes --output datasets/synthetic --split train --count 1200 --seed 1 --difficulty easy" in said
