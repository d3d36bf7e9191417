"""Runs the shell examples of Markdown pages, with trainings and data sets made small.

Commands of Python programs (``bcnet ...``, ``python tools/...``) run in children of a fork server that has imported
torch and bcnet once; anything else runs in bash.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bcnet.cli import main as bcnet_command

ROOT = Path(__file__).parents[2]
_TIMEOUT = 600  # seconds for one command, on a busy machine
_PRELOADED = ["bcnet.cli.train_processes", "bcnet.cli.evaluate", "bcnet.cli.draw"]
# What stands for something else on the pages.
_PLACEHOLDERS = {"CONFIG": "configs/quick/bcnet_faster_rcnn.yaml"}
# Appended to trainings and evaluations.
_SMALL_IMAGES = """
    MODEL.DEVICE cpu INPUT.MIN_SIZE_TRAIN '(64,)' INPUT.MAX_SIZE_TRAIN 96 INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96
    TEST.AUG.MIN_SIZES '(64,)' TEST.AUG.MAX_SIZE 96 TEST.DETECTIONS_PER_IMAGE 10
"""
_SHORT_TRAINING = """
    SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.STEPS '()' SOLVER.WARMUP_ITERS 0 TEST.EVAL_PERIOD 0
    DATALOADER.NUM_WORKERS 0 VIS_PERIOD 0
"""
# A ResNet-18 of 32 channels without pretrained weights; the quick configs are small as they are.
_SMALL_MODEL = """
    MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.RESNETS.STRIDE_IN_1X1 False MODEL.WEIGHTS ''
    MODEL.FPN.OUT_CHANNELS 32 MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.ROI_MASK_HEAD.CONV_DIM 32
"""
_SCENES = "4"


def run_shell(source: str, folder: Path) -> None:
    """Runs the commands of a shell example one after the other.

    Args:
        source: the text of the example.
        folder: working directory.

    Raises:
        AssertionError: a command that failed, with what it printed.
    """
    for line in _commands(source):
        words = shlex.split(line, comments=True)
        if words[0] in ("bcnet", "python"):
            _run_python(_shortened([_PLACEHOLDERS.get(word, word) for word in words]), folder)
        elif words == ["bash", "all.sh"]:
            _run_bash(f"{shlex.join(words)} {_SMALL_IMAGES} {_SHORT_TRAINING}".replace("\n", " "), folder)
        else:
            _run_bash(line, folder)


def _commands(source: str) -> Iterator[str]:
    """The lines of a script, continued ones joined, without comments and empty lines."""
    for line in source.replace("\\\n", " ").splitlines():
        if shlex.split(line, comments=True):
            yield line


def _shortened(words: list[str]) -> list[str]:
    """The command with settings that end in seconds."""
    words = list(words)
    if "--count" in words:
        words[words.index("--count") + 1] = _SCENES
    program = words[1]
    trains = (program == "train" or program.endswith("train_net.py")) and "--eval-only" not in words
    evaluates = "--eval-only" in words or (program == "evaluate" and "--weights" in words)
    if trains or evaluates:
        words += shlex.split(_SMALL_IMAGES)
    if trains:
        words += shlex.split(_SHORT_TRAINING)
    if trains and not any("quick/" in word for word in words):
        words += shlex.split(_SMALL_MODEL)
    return words


def _run_python(words: list[str], folder: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    log = folder / ".log.txt"
    process = context.Process(target=_python_program, args=(words, str(folder), str(log)))
    process.start()
    process.join(_TIMEOUT)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode == 0, f"{shlex.join(words)}\nended with {process.exitcode}:\n{log.read_text()}"


def _python_program(words: list[str], folder: str, log: str) -> None:
    """Runs a program as its command line would; its output goes to a file."""
    output = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    sys.path.insert(0, str(ROOT))
    program, *arguments = words if words[0] == "bcnet" else words[1:]
    if program == "bcnet":
        sys.argv = ["bcnet", *arguments]
        bcnet_command()
    elif program == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")


def _run_bash(line: str, folder: Path) -> None:
    paths = {"PATH": [str(Path(sys.executable).parent)], "PYTHONPATH": [str(ROOT)]}
    env = {name: os.pathsep.join([*first, os.environ.get(name, "")]) for name, first in paths.items()}
    env |= {"BCNET_NO_VENV": "1", "TRAIN_SCENES": _SCENES, "VAL_SCENES": _SCENES}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
    )
    assert done.returncode == 0, f"{line}\nended with {done.returncode}:\n{done.stdout}"
