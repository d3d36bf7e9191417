"""``bcnet draw``: pictures and videos of the detections of a model, with both layers."""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments, add_model_arguments, default_to_packaged, parse_with_keys

EXAMPLES = """example:
  %(prog)s --weights output/quick/model_final.pth --input photos/ "more/*.jpg" walk.mp4 webcam --output pictures

A webcam is drawn until Ctrl-C or --max-images.
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Draws the detections of a model: masks, both layers, occlusion relations, and heat maps of every detection."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="INPUT",
        help="image and video files, folders, patterns, URLs, webcam or webcam:N, data set names or specs "
        "(default: DATASETS.TEST of the config)",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the pictures")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="lowest score drawn (default: %(default)s)")
    parser.add_argument(
        "--max-images", type=int, metavar="N", help="draw the first N images, and N frames of each video"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say what is loaded and done, not only what goes wrong"
    )
    add_config_arguments(parser)
    args = parse_with_keys(parser, arguments, "input")
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    from bcnet.config import load_config
    from bcnet.data import find_images
    from bcnet.prediction.loading import config_of_weights, load
    from bcnet.progress import progress_wanted
    from bcnet.visualization import draw_predictions

    default_to_packaged(args, "lite-detector")
    inputs = args.input
    if not inputs:
        cfg = load_config(args.config_file, args.opts) if args.config_file else config_of_weights(args.weights)
        inputs = cfg.DATASETS.TEST
    files = find_images(inputs, videos=True)
    model = load(args.config_file, args.weights, args.opts)
    predict = functools.partial(model.predict, format="RGB", with_occluder=True)
    predict([], score_threshold=args.score_threshold)  # a model that takes boxes is an error before images are read
    gallery = draw_predictions(
        predict,
        files,
        args.output,
        score_threshold=args.score_threshold,
        max_images=args.max_images,
        max_image_pixels=model.max_image_pixels,
        progress=progress_wanted(),
    )
    print(f"{gallery.summary()} to {args.output}")
    if not gallery.drawn:
        parser.exit(1, "error: no image was drawn\n")
