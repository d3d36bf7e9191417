"""Command line: the `bcnet` command and its subcommands."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import bcnet
from bcnet.cli.errors import one_line_errors


class Group(NamedTuple):
    """A group of subcommands."""

    description: str
    commands: dict[str, str | Group]


# `bcnet A B-C` is `main` of the module bcnet.cli.a.b_c.
COMMANDS: dict[str, str | Group] = {
    "train": "train a model, or evaluate one on data sets",
    "evaluate": "metrics of a model on data sets, or of a COCO results file",
    "predict": "detect instances in images and write them as a COCO json, and as pictures",
    "segment": "masks and occluders for the boxes of any detector, from a COCO results file",
    "draw": "draw the detections of a model in images and videos, with both layers and heat maps",
    "export": "write a model as ONNX, OpenVINO or a torch.export program",
    "demo": "web page on which to try a model: upload an image, move thresholds, click an object",
    "push": "upload a model to the Hugging Face Hub, or save it as a folder that others can load",
    "info": "versions and devices; what a config or a weights file is",
    "data": Group(
        "prepare annotation files, and look at them",
        {
            "annotate": "add the occluder mask of every instance to a COCO json",
            "occ-split": "select the images of a COCO json in which objects overlap (COCO-OCC)",
            "scenes": "make a data set of synthetic scenes with occlusion",
            "draw": "draw training data: instances, occluders, targets",
            "check": "counts, suspicious entries and shared images of data sets, and a config to start with",
            "convert": "convert labelme, YOLO, CVAT, label images, ... to COCO, and back",
        },
    ),
    "weights": Group(
        "work on weights files",
        {"convert": "convert weights to the tensor names of bcnet or detectron2"},
    ),
}
ALIASES = {"annotate": ("data", "annotate")}

EPILOG = """'{prog} COMMAND --help' lists the arguments of a command.
The environment variable BCNET_TRACEBACK=1 shows where an error comes from."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs ``bcnet COMMAND ...``.

    Raises:
        SystemExit: a command line that cannot be run (2), a command that failed (1) or was interrupted (130).
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in ALIASES:
        arguments[:1] = ALIASES[arguments[0]]
    names: list[str] = []
    command: str | Group = Group("occlusion-aware instance segmentation", COMMANDS)
    while isinstance(command, Group):
        parser = _parser(" ".join(["bcnet", *names]), command)
        # Further arguments are parsed by the command's own parser.
        names.append(parser.parse_args(arguments[len(names) : len(names) + 1]).command)
        if names[-1] not in command.commands:
            parser.error(_unknown_command(names[-1], [*command.commands, *(ALIASES if len(names) == 1 else ())]))
        command = command.commands[names[-1]]
    with one_line_errors(parser):
        # Imported lazily: the help should not need to import torch.
        module = importlib.import_module(".".join(["bcnet.cli", *names]).replace("-", "_"))
        try:
            module.main(arguments[len(names) :], prog=" ".join(["bcnet", *names]))
        except KeyboardInterrupt:
            parser.exit(130, "\ninterrupted\n")


def _parser(prog: str, group: Group) -> argparse.ArgumentParser:
    entries = (
        (name, entry.description if isinstance(entry, Group) else entry) for name, entry in group.commands.items()
    )
    listed = "\n".join(f"  {name:<11}{text}" for name, text in entries)
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [-h] [--version] COMMAND ...",
        description=f"{group.description.capitalize()}.",
        epilog=f"commands:\n{listed}\n\n{EPILOG.format(prog=prog)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bcnet {bcnet.__version__}")
    parser.add_argument("command", metavar="COMMAND", help="what to do; its own arguments follow")
    return parser


def _unknown_command(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"there is no command {name!r}; " + (
        f"did you mean {nearest[0]!r}?" if nearest else f"the commands are {', '.join(known)}"
    )
