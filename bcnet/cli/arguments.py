"""Arguments that several commands share: config file, weights, plug-in modules, config keys."""

from __future__ import annotations

import argparse

from bcnet.registry import import_modules


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config-file`` and ``--weights`` of a trained model, whose weights may bring their config."""
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="YAML file, or the name of one that comes with bcnet (default: the config saved with the weights)",
    )
    parser.add_argument("--weights", metavar="FILE", help="weights file (default: MODEL.WEIGHTS of the config)")


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--import``, and as the rest of the command line `opts`, config keys with their values.

    ``--import`` imports while parsing, so that the config may name components of the module.

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
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys with new values")


def _import_module(name: str) -> str:
    try:
        import_modules([name])
    except ImportError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from error
    return name
