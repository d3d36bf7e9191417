#!/usr/bin/env python
"""Draws what a model finds: detections, both layers, who hides whom, and heat maps of every detection.

    python tools/visualize.py --config-file configs/quick/bcnet_faster_rcnn.yaml \\
        --weights output/quick/model_final.pth --input photos/ "more/*.jpg" walk.mp4 webcam --output pictures

A webcam is drawn until Ctrl-C or --max-images.
"""

from __future__ import annotations

import argparse
import functools
import logging

import bcnet
from bcnet.config import load_config
from bcnet.visualization import draw_predictions, find_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML file")
    parser.add_argument("--weights", metavar="FILE", help="weights file (default: MODEL.WEIGHTS of the config)")
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="INPUT",
        help="image and video files, folders, patterns, webcam or webcam:N, data set names or specs "
        "(default: DATASETS.TEST of the config)",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the pictures")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="lowest score drawn (default: 0.5)")
    parser.add_argument("--max-images", type=int, help="draw the first so many images, and frames of each video")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys with new values")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        files = find_images(args.input or load_config(args.config_file, args.opts).DATASETS.TEST, videos=True)
        model = bcnet.load(args.config_file, args.weights, args.opts)
    except (OSError, ValueError, KeyError) as error:
        parser.exit(1, f"error: {error.args[0] if isinstance(error, KeyError) else error}\n")
    gallery = draw_predictions(
        functools.partial(model.predict, format="RGB", with_occluder=True),
        files,
        args.output,
        score_threshold=args.score_threshold,
        max_images=args.max_images,
    )
    print(f"{gallery.summary()} to {args.output}")
    if not gallery.drawn:
        parser.exit(1)


if __name__ == "__main__":
    main()
