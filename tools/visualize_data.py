#!/usr/bin/env python
"""Draws what a model is trained on: instances, their occluders, and the four targets of the mask head.

    python tools/visualize_data.py --dataset coco:annotations.json:images --output pictures
    python tools/visualize_data.py --config-file configs/quick/bcnet_faster_rcnn.yaml --output pictures

With --config-file the images are resized and flipped as in training; with --dataset alone they stay as they are.
"""

from __future__ import annotations

import argparse
import logging

from bcnet.config import load_config
from bcnet.data import DatasetMapper
from bcnet.visualization import draw_training_data

AS_THEY_ARE = ["MODEL.MASK_ON", True, "INPUT.MIN_SIZE_TRAIN", (0,), "INPUT.RANDOM_FLIP", "none"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", metavar="NAME", help="name or spec (default: DATASETS.TRAIN of the config)")
    parser.add_argument("--config-file", metavar="FILE", help="YAML file")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the pictures")
    parser.add_argument("--max-images", type=int, help="draw the first so many images with instances")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys with new values")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if not args.dataset and not args.config_file:
        parser.error("--dataset or --config-file says what to draw")
    drawn = 0
    try:
        cfg = load_config(args.config_file, [*([] if args.config_file else AS_THEY_ARE), *args.opts])
        mapper = DatasetMapper.from_config(cfg, training=True)
        for dataset in [args.dataset] if args.dataset else cfg.DATASETS.TRAIN:
            gallery = draw_training_data(
                mapper, dataset, args.output, max_images=args.max_images, seed=max(cfg.SEED, 0)
            )
            print(f"{dataset}: {gallery.summary()} to {args.output}")
            drawn += gallery.drawn
    except (OSError, ValueError, KeyError) as error:
        parser.exit(1, f"error: {error.args[0] if isinstance(error, KeyError) else error}\n")
    if not drawn:
        parser.exit(1)


if __name__ == "__main__":
    main()
