"""``bcnet predict``: detections of images as a COCO json."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence

from bcnet.cli.errors import one_line_errors
from bcnet.cli.imports import add_import_argument

EPILOG = """example:
  %(prog)s --weights output/quick/model_final.pth --input photos/ "more/*.jpg" --output found.json --pictures pictures
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Detects the instances in images and writes them as a COCO json: boxes, scores, classes, masks as RLE."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="YAML file, or the name of one that comes with bcnet (default: the config saved with the weights)",
    )
    parser.add_argument("--weights", metavar="FILE", help="weights file (default: MODEL.WEIGHTS of the config)")
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="INPUT",
        help="image files, addresses, folders, patterns, data set names or specs",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="json file to write")
    parser.add_argument("--pictures", metavar="FOLDER", help="folder for pictures of what was found")
    parser.add_argument(
        "--layers", action="store_true", help="the occluder layer too: occluder masks, who hides whom, order of depth"
    )
    parser.add_argument("--score-threshold", type=float, default=0.5, help="lowest score (default: %(default)s)")
    parser.add_argument(
        "--mask-threshold", type=float, default=0.5, help="lowest probability of a mask's pixel (default: %(default)s)"
    )
    parser.add_argument("--max-detections", type=int, help="per image (default: TEST.DETECTIONS_PER_IMAGE)")
    parser.add_argument("--batch-size", type=int, default=4, help="images at once (default: %(default)s)")
    add_import_argument(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys with new values")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    from bcnet.prediction.files import predict_files
    from bcnet.prediction.predictor import load
    from bcnet.progress import progress_wanted
    from bcnet.visualization import find_images

    with one_line_errors(parser):
        if not args.output.endswith(".json"):
            raise ValueError(f"--output names the json file to write, got {args.output!r}")
        files = [file for name in args.input for file in ([name] if _is_address(name) else find_images([name]))]
        model = load(args.config_file, args.weights, args.opts)
        summary = predict_files(
            model,
            list(dict.fromkeys(files)),
            args.output,
            pictures=args.pictures,
            with_occluder=args.layers or args.pictures is not None,
            score_threshold=args.score_threshold,
            mask_threshold=args.mask_threshold,
            max_detections=args.max_detections,
            batch_size=args.batch_size,
            progress=progress_wanted(),
        )
    print(f"{summary}, in {args.output}" + (f" and {args.pictures}{os.sep}" if args.pictures else ""))
    if not summary.images:
        parser.exit(1)


def _is_address(name: str) -> bool:
    return name.startswith(("http://", "https://"))
