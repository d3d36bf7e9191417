from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from bcnet.cli import train as command_line
from bcnet.cli import train_processes as processes_of_train
from bcnet.training.interruption import TrainingInterrupted
from bcnet.training.step_values import NonFiniteLossError


@pytest.fixture
def calls(monkeypatch):
    """What would be launched, with the keywords."""
    seen = []
    monkeypatch.setattr(
        processes_of_train, "launch", lambda function, args, **keywords: seen.append((function, args, keywords))
    )
    return seen


def test_detectron2s_arguments(calls, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("SEED: 4\n")
    arguments = ["--config-file", str(config), "--num-gpus", "1", "--num-machines", "2", "--machine-rank", "1"]
    arguments += ["--dist-url", "tcp://10.0.0.1:29500", "--resume", "--eval-only", "SOLVER.BASE_LR", "0.5"]
    command_line.main(arguments)
    ((function, args, keywords),) = calls
    assert function is processes_of_train.run
    assert args == (str(config), ["SOLVER.BASE_LR", "0.5"], True, True, [])
    assert keywords == {
        "num_processes": 1,
        "num_machines": 2,
        "machine_rank": 1,
        "dist_url": "tcp://10.0.0.1:29500",
        "use_gpus": True,
    }


def test_more_gpus_than_there_are(monkeypatch, capsys, calls):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--num-gpus", "3"])
    assert caught.value.code == 2
    assert "--num-gpus 3: this machine has 2" in capsys.readouterr().err
    command_line.main(["--num-gpus", "2"])
    assert calls[0][2]["num_processes"] == 2


def test_one_process_runs_without_a_gpu(monkeypatch, calls, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command_line.main([])
    with pytest.raises(SystemExit):
        command_line.main(["--num-gpus", "2"])
    assert "this machine has 0" in capsys.readouterr().err
    command_line.main(["--num-gpus", "2", "MODEL.DEVICE", "cpu"])
    assert [keywords["use_gpus"] for _, _, keywords in calls] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-gpus", "0"], "at least 1 process"),
        (["--num-machines", "2"], "needs a --dist-url"),
        (["--num-machines", "2", "--machine-rank", "2", "--dist-url", "tcp://a:1"], "--machine-rank 2"),
        (["--host", "tensorflow"], "invalid choice: 'tensorflow'"),
    ],
)
def test_command_lines_that_make_no_sense(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_detectron2_is_asked_for_and_absent(monkeypatch, capsys):
    monkeypatch.setattr(processes_of_train.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        command_line.main(["--host", "detectron2"])
    assert "detectron2 is not installed" in capsys.readouterr().err


def test_unknown_key_fails_before_anything_starts(calls, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(["SOLVER.BASE_LT", "1"])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1 and line.startswith("error: ") and "SOLVER.BASE_LR" in line
    assert not calls
    monkeypatch.setenv("BCNET_TRACEBACK", "1")
    with pytest.raises(KeyError, match=r"SOLVER\.BASE_LR"):
        command_line.main(["SOLVER.BASE_LT", "1"])


def test_a_loss_that_is_not_finite_is_one_message(monkeypatch, capsys):
    def failing(cfg, resume):
        raise NonFiniteLossError("the loss is not finite in iteration 7")

    monkeypatch.setattr(processes_of_train, "train", failing)
    with pytest.raises(SystemExit) as caught:
        command_line.main(["MODEL.DEVICE", "cpu"])
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: the loss is not finite in iteration 7\n"


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_user_is_one_line_also_from_workers(tmp_path, processes):
    command = [sys.executable, "-m", "bcnet", "train", "--num-gpus", str(processes), "MODEL.DEVICE", "cpu"]
    command += ["OUTPUT_DIR", str(tmp_path / "output"), "DATASETS.TRAIN", "('coco:absent.json:images',)"]
    command += ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.ROI_BOX_HEAD.FC_DIM", "8"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 1
    assert done.stderr.startswith("error: data set 'coco:absent.json:images'") and done.stderr.count("\n") == 1
    assert not (tmp_path / "output").exists()


def test_interruption_is_an_exit_status(monkeypatch):
    def interrupted(cfg, resume):
        raise TrainingInterrupted("training was interrupted", 15)

    monkeypatch.setattr(processes_of_train, "train", interrupted)
    with pytest.raises(SystemExit) as caught:
        processes_of_train.run("", [], False, False)
    assert caught.value.code == 143


def test_importing_bcnet_does_not_import_torch():
    code = "import bcnet, sys; assert 'torch' not in sys.modules; from bcnet import load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
