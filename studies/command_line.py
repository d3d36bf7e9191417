"""Arguments that the commands of the studies share."""

from __future__ import annotations

import argparse
import os

from bcnet.cli.arguments import add_import_argument


def add_study_arguments(parser: argparse.ArgumentParser, plan: str, output: str, *, example: str) -> None:
    """Adds ``--plan``, ``--output``, ``--only``, ``--import``, ``--report-only``, and as `opts` the overrides.

    Args:
        plan, output: the defaults.
        example: a pattern of runs.
    """
    parser.add_argument("--plan", default=plan, help="YAML file (default: %(default)s)")
    parser.add_argument(
        "--output", default=output, help="folder for data, runs, results and report (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help=f"select runs by name, such as {example!r}; may be repeated",
    )
    add_import_argument(parser)
    parser.add_argument(
        "--report-only", action="store_true", help="report what is finished without starting other runs"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="values of the plan to override")


def require_output(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exits with a message if there is to be a report alone, of a folder that does not exist."""
    if arguments.report_only and not os.path.isdir(arguments.output):
        parser.exit(1, f"error: there is no folder {arguments.output}, and so nothing to report\n")


def positive(text: str) -> int:
    """A number of at least 1, for `argparse`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
