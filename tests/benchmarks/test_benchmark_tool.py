"""The command line of ``python -m benchmarks``."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from benchmarks import scaling, stages, suite

TOOL = Path(__file__).resolve().parents[2] / "benchmarks/__main__.py"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name="__main__")


def test_chosen_rows_as_a_page_and_as_json(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.json"
    run(monkeypatch, "--quick", "--repeats", 1, "--rows", "paste", "memory", "--markdown", "--json", path)
    assert capsys.readouterr().out.startswith("| work | per |")
    paste, memory, peer_memory = json.loads(path.read_text())
    assert paste["name"] == "paste" and paste["environment"]["quick"]
    assert memory["verdict"] == "not measured" and peer_memory["name"] == "memory-torchvision"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), list(suite.ROWS)),
        (("--rows", "training", "paste"), ["training", "paste"]),
        (("--annotations", "some.json"), ["occluders"]),
        (("--annotations", "some.json", "--rows", "paste"), ["paste"]),
        (("--stages",), []),
        (("--scaling", "folder"), []),
    ],
)
def test_which_rows_run(monkeypatch, arguments, expected):
    chosen = []
    monkeypatch.setattr(suite, "run_rows", lambda names, _settings: chosen.extend(names) or [])
    monkeypatch.setattr(stages, "stage_tables", lambda _settings: [])
    monkeypatch.setattr(scaling, "measure_growth", lambda _settings: [])
    run(monkeypatch, *arguments)
    assert chosen == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rows", "none"), "invalid choice: 'none'"),
        (("--precision", "int8"), "invalid choice: 'int8'"),
    ],
)
def test_wrong_arguments(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--annotations", "none.json"), "none.json"),
        (("--repeats", "0", "--rows", "paste"), "repeats must be at least 1, got 0"),
        (("--rows", "training", "--quick", "--config", "none.yaml"), "none.yaml"),
    ],
)
def test_errors_end_the_run_with_one_line(monkeypatch, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert str(stopped.value.code).startswith("error: ")
    assert message in str(stopped.value.code)


def test_a_disagreement_ends_the_run(monkeypatch):
    def disagree(_settings):
        raise RuntimeError("the two ways disagree")

    monkeypatch.setitem(suite.ROWS, "paste", disagree)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--rows", "paste")
    assert stopped.value.code == "error: the two ways disagree"
