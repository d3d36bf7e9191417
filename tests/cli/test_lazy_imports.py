"""Commands that work on annotations, and the help of every command, start without importing torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from command_lines import command_lines
from small_models import write_small_data_set

# What takes long to import.
HEAVY = ("torch", "torchvision", "matplotlib", "tensorboard", "faster_coco_eval")


def imported_by(commands: list[list[str]], folder) -> dict[str, list[str]]:
    """Which packages of `HEAVY` a process has imported after each command, by the command line."""
    code = f"""
import contextlib, io, json, sys
from bcnet.cli import main
imported = {{}}
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as end:
            assert not end.code, (arguments, end.code)
    imported[" ".join(arguments)] = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps(imported))
"""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=folder)
    return json.loads(done.stdout)


def test_help_imports_nothing_large(tmp_path):
    commands = [["--help"], *([*line.split(), "--help"] for line in command_lines())]
    assert len(commands) > 15
    assert set(map(tuple, imported_by(commands, tmp_path).values())) == {()}


def test_annotations_are_worked_on_without_torch(tmp_path):
    write_small_data_set(tmp_path / "data", images=2)
    annotations = "data/annotations.json"
    commands = [
        ["info"],
        ["annotate", "--input", annotations, "--output", "occluders.json", "--workers", "1"],
        ["data", "occ-split", "--input", annotations, "--output", "occluded.json"],
        ["data", "scenes", "--output", "scenes", "--count", "1", "--workers", "1", "--size", "64"],
        ["data", "convert", "--from", "coco", "--input", annotations, "--images", "data/images", "--to", "yolo"],
        ["data", "check", f"coco:{annotations}:data/images"],
    ]
    commands[4] += ["--output", "yolo"]
    assert set(map(tuple, imported_by(commands, tmp_path).values())) == {()}
    # The report's colours are a colour map of matplotlib.
    report = ["data", "check", f"coco:{annotations}:data/images", "--output", "report.html"]
    assert imported_by([report], tmp_path) == {" ".join(report): ["matplotlib"]}
