"""Models of commands that predict: weights, or an exported file, which runs without torch."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bcnet.exported_files import exported_file

if TYPE_CHECKING:
    from bcnet.export.runtime import ExportedPredictor
    from bcnet.prediction import Predictor


def load_model(args: argparse.Namespace, *, tensors: bool) -> Predictor | ExportedPredictor:
    """The model that ``--config-file``, ``--weights``, ``--precision`` and config keys name.

    Args:
        args: of a parser with `add_model_arguments`, `add_config_arguments` and ``--precision``.
        tensors: what is made of the results, pictures, videos or tiles, needs torch.

    Raises:
        ImportError: torch is needed and not installed; else as `bcnet.load`.
    """
    if (exported := exported_file(args.config_file, args.weights, args.opts)) is None:
        from bcnet.prediction.loading import load_predictor

        return load_predictor(args.config_file, args.weights, args.opts, precision=args.precision)
    from bcnet.export.runtime import ExportedPredictor

    try:
        return ExportedPredictor.load(exported, tensors=tensors, precision=args.precision)
    except ImportError as error:
        if tensors and error.name == "torch":
            message = "pictures, videos and tiles of an exported model need torch, json of images does not"
            raise ImportError(message) from error
        raise
