"""Processes of ``bcnet train``: checks what the command line asks for, then trains or evaluates in each process."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

import torch

from bcnet.cli.errors import USER_ERRORS, one_line_errors
from bcnet.config import CfgNode, load_config
from bcnet.prediction.loading import config_of_weights
from bcnet.registry import import_modules
from bcnet.training.interruption import TrainingInterrupted
from bcnet.training.launch import launch, started_by_torchrun
from bcnet.training.step_values import NonFiniteLossError
from bcnet.training.train import evaluate_only, train


def run_command(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Runs a parsed command line of `bcnet.cli.train`; errors of the user are one line, a loss that is not finite too.

    Raises:
        SystemExit: as `bcnet.cli.train.main`.
    """
    with one_line_errors(parser, (*USER_ERRORS, NonFiniteLossError)):
        _launch(parser, args)


def _launch(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.host == "detectron2":
        if importlib.util.find_spec("detectron2") is None:
            parser.error("--host detectron2: the package detectron2 is not installed (see its INSTALL.md)")
        from bcnet.detectron2.train import main as detectron2_main

        detectron2_main(args)
        return
    cfg = _config_of(args.config_file, args.opts, args.eval_only)
    use_gpus = cfg.MODEL.DEVICE.startswith("cuda")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # One process runs anywhere: without a GPU it falls back to the CPU.
    if use_gpus and not started_by_torchrun() and args.num_gpus > max(gpus, 1):
        parser.error(f"--num-gpus {args.num_gpus}: this machine has {gpus}")
    if args.num_gpus < 1:
        parser.error(f"--num-gpus {args.num_gpus}: at least 1 process is needed; MODEL.DEVICE cpu runs without a GPU")
    if args.num_machines < 1 or not 0 <= args.machine_rank < args.num_machines:
        parser.error(f"--machine-rank {args.machine_rank} is not one of {args.num_machines} machines, counted from 0")
    if args.num_machines > 1 and args.dist_url == "auto" and not started_by_torchrun():
        parser.error(
            f"--num-machines {args.num_machines} needs a --dist-url reachable from all of them, tcp://address:port"
        )
    launch(
        run,
        (args.config_file, args.opts, args.eval_only, args.resume, args.imports),
        num_processes=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        use_gpus=use_gpus,
    )


def run(config_file: str, opts: Sequence[str], eval_only: bool, resume: bool, imports: Sequence[str] = ()) -> None:
    """Trains or evaluates in each process."""
    import_modules(imports)
    cfg = _config_of(config_file, opts, eval_only)
    if eval_only:
        evaluate_only(cfg, resume)
        return
    try:
        train(cfg, resume)
    except TrainingInterrupted as interrupted:
        sys.exit(128 + interrupted.signal_number)


def _config_of(config_file: str, opts: Sequence[str], eval_only: bool) -> CfgNode:
    """The config of the command line; without a file, an evaluation takes the one saved with MODEL.WEIGHTS."""
    if config_file or not eval_only:
        return load_config(config_file or None, opts)
    weights = load_config(None, opts).MODEL.WEIGHTS
    return config_of_weights(weights, opts) if weights else load_config(None, opts)
