"""The `bcnet` command. Each of its commands is a module here with `main`, which the scripts in `tools/` call too."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

import bcnet

COMMANDS = {
    "train": "train a model, or evaluate one on data sets",
    "evaluate": "metrics of a model on data sets, or of a COCO results file",
    "predict": "detect instances in images and write them as a COCO json, and as pictures",
    "annotate": "add the occluder mask of every instance to a COCO json",
    "info": "versions and devices; what a config or a weights file is",
}


EPILOG = """'bcnet COMMAND --help' lists the arguments of one.
The environment variable BCNET_TRACEBACK=1 shows where an error comes from."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs ``bcnet COMMAND ...``.

    Raises:
        SystemExit: a command line that cannot be run (2), a command that failed (1) or was interrupted.
    """
    listed = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="bcnet",
        description="Occlusion-aware instance segmentation.",
        epilog=f"commands:\n{listed}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bcnet {bcnet.__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of: " + ", ".join(COMMANDS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of the command")
    args = parser.parse_args(arguments)
    # Imported when it is called for: the help should not take the time to import torch.
    command = importlib.import_module(f"bcnet.cli.{args.command}")
    try:
        command.main(args.arguments, prog=f"bcnet {args.command}")
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted\n")
