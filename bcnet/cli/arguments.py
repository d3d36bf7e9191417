"""The argument ``--import MODULE``: imports plug-in modules that register components."""

from __future__ import annotations

import argparse

from bcnet.registry import import_modules


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--import``, which imports while parsing, so that the config may name components of the module.

    The parsed arguments have the module names as `imports`, for `import_modules` in spawned processes. A module that
    cannot be imported is a usage error.
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
