"""The argument ``--import MODULE``: imports the modules that register components of other packages."""

from __future__ import annotations

import argparse

from bcnet.registry import import_modules


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--import``, which imports at once, so that the config may name what the module registers.

    The parsed arguments have the modules' names as `imports`, for `import_modules` in further processes. A module that
    cannot be imported is an error of the command line.
    """
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        type=_import_module,
        default=[],
        metavar="MODULE",
        help="Python module that registers components of your own, e.g. my_package.heads; may be repeated",
    )


def _import_module(name: str) -> str:
    try:
        import_modules([name])
    except ImportError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from error
    return name
