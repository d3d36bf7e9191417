"""The `bcnet` command. Each of its commands is a module here with `main`, which the scripts in `tools/` call too."""

from __future__ import annotations

import argparse
import importlib
import sys
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
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    listed = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="bcnet",
        usage="bcnet [-h] [--version] COMMAND ...",
        description="Occlusion-aware instance segmentation.",
        epilog=f"commands:\n{listed}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bcnet {bcnet.__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="what to do; its own arguments follow")
    # What follows the command is for the command's own parser.
    name = parser.parse_args(arguments[:1]).command
    # Imported when it is called for: the help should not take the time to import torch.
    command = importlib.import_module(f"bcnet.cli.{name}")
    try:
        command.main(arguments[1:], prog=f"bcnet {name}")
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted\n")
