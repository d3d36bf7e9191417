"""``bcnet train`` and `tools/train_net.py`: training and evaluation, with detectron2's arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments

EXAMPLES = """examples:
  one GPU, or the CPU:  %(prog)s --config-file configs/fcos/fcos_imprv_R_50_FPN.yaml
  eight GPUs:           %(prog)s --config-file ... --num-gpus 8
  another value:        %(prog)s --config-file ... SOLVER.BASE_LR 0.005 OUTPUT_DIR output/slow
  own data:             %(prog)s --config-file ... DATASETS.TRAIN '("coco:annotations.json:images",)'
  evaluation:           %(prog)s --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth
  torchrun:             torchrun --nproc-per-node 8 -m bcnet train --config-file ...
"""


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments, by detectron2's names."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train or evaluate a model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="YAML file, or the name of one that comes with bcnet"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    parser.add_argument(
        "--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS (with --resume the last checkpoint)"
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs on this machine, one process each")
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines")
    parser.add_argument("--machine-rank", type=int, default=0, help="this machine, counted from 0")
    parser.add_argument("--dist-url", default="auto", help="address of the process group, tcp://address:port")
    parser.add_argument(
        "--host",
        choices=("torchvision", "detectron2"),
        default="torchvision",
        help="bcnet's own trainer or detectron2's",
    )
    add_config_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parses the command line and runs it, in as many processes as it requests.

    Raises:
        SystemExit: a command line that cannot be run (2), input that cannot be used or a loss that is not finite (1,
            with one message; BCNET_TRACEBACK=1 raises the error itself), or an interrupted training (128 + signal).
    """
    parser = build_parser(prog)
    args = parser.parse_args(arguments)
    # Imported lazily: the help should not need to import torch.
    from bcnet.cli.train_processes import run_command

    run_command(parser, args)
