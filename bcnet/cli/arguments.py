"""Arguments that several commands share: config file, weights, plug-in modules, config keys."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence

from bcnet.registry import import_modules

logger = logging.getLogger(__name__)


def add_model_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds ``--config-file`` and ``--weights`` of a trained model, whose weights may bring their config."""
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="YAML file, or the name of one that comes with bcnet (default: the config saved with the weights)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights file, URL, or 'lite' (for boxes) or 'lite-detector', which come with bcnet "
        "(default: MODEL.WEIGHTS of the config; to predict without a config, the model that comes with bcnet)",
    )


def default_to_packaged(args: argparse.Namespace, name: str) -> None:
    """Where neither weights nor a config are given, takes a model of `bcnet.checkpoint.packaged`, and warns."""
    if args.config_file is None and args.weights is None and not any(o.startswith("MODEL.WEIGHTS") for o in args.opts):
        logger.warning("no --weights: this is the small model %r, which comes with bcnet (docs/lite.md)", name)
        args.weights = name


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--import``, which imports while parsing, so that what follows may name components of the module.

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


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--import``, and as the rest of the command line `opts`, config keys with their values."""
    add_import_argument(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys with new values")


# Keys of other packages' sections are recognised at the end of the command line only.
_SECTIONS, _KEYS = "MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST", "SEED|OUTPUT_DIR|VIS_PERIOD|CUDNN_BENCHMARK"
_CONFIG_KEY = re.compile(rf"(({_SECTIONS})(\.[A-Z0-9_]+)+|{_KEYS})(=.*)?")


def parse_with_keys(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, name: str) -> argparse.Namespace:
    """Parses a command line whose config keys may directly follow an option of many values.

    argparse would take ``MODEL.DEVICE cpu`` after ``--input photos/`` for further inputs. From the first word that
    looks like a config key on, values of that option are moved to `opts`.

    Args:
        parser: with `add_config_arguments`.
        arguments: the command line; None takes that of the process.
        name: of the option of many values.
    """
    args = parser.parse_args(arguments)
    values = list(getattr(args, name) or ())
    first_key = next((i for i, value in enumerate(values) if _CONFIG_KEY.fullmatch(value)), len(values))
    if first_key == 0 and values:
        parser.error(f"--{name} has no value: {values[0]!r} looks like a config key")
    if first_key < len(values):
        setattr(args, name, values[:first_key])
        args.opts = [*values[first_key:], *args.opts]
    return args


def _import_module(name: str) -> str:
    try:
        import_modules([name])
    except ImportError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from error
    return name
