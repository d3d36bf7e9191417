"""``bcnet data draw``: draws training data: ground-truth instances, occluders and mask targets."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments

EXAMPLES = """examples:
  a data set without changes: %(prog)s --dataset coco:annotations.json:images --output pictures
  as a config augments it:    %(prog)s --config-file quick/bcnet_faster_rcnn.yaml --output pictures
  with objects pasted in:     %(prog)s --dataset coco:annotations.json:images --output pictures \\
                                INPUT.COMPOSITION.ENABLED True INPUT.COMPOSITION.PROBABILITY 1.0 \\
                                MODEL.BILAYER.OCCLUDER_TARGET front
"""
UNCHANGED = ["MODEL.MASK_ON", True, "INPUT.MIN_SIZE_TRAIN", (0,), "INPUT.RANDOM_FLIP", "none"]


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Draws training data: instances, their occluders, and the targets of the mask head."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", metavar="NAME", help="name or spec (default: DATASETS.TRAIN of the config)")
    parser.add_argument("--config-file", metavar="FILE", help="YAML file, or the name of one that comes with bcnet")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the pictures")
    parser.add_argument("--max-images", type=int, metavar="N", help="draw the first N images with instances")
    add_config_arguments(parser)
    args = parser.parse_args(arguments)
    if not args.dataset and not args.config_file:
        parser.error("--dataset or --config-file is required")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    from bcnet.config import load_config
    from bcnet.data import DatasetMapper, load_dataset
    from bcnet.data.composition import build_composition
    from bcnet.maps import AMODAL, required_layers
    from bcnet.modeling.mask_heads import bilayer_maps
    from bcnet.visualization import draw_training_data

    cfg = load_config(args.config_file, [*([] if args.config_file else UNCHANGED), *args.opts])
    layers = list(required_layers(bilayer_maps(cfg)))
    if cfg.INPUT.COMPOSITION.ENABLED and AMODAL not in layers:
        layers.append(AMODAL)
    drawn = 0
    for dataset in [args.dataset] if args.dataset else cfg.DATASETS.TRAIN:
        records, info = load_dataset(dataset)
        composition = build_composition(cfg, records, info.class_names)
        mapper = DatasetMapper.from_config(cfg, training=True, layers=layers, composition=composition)
        gallery = draw_training_data(
            mapper,
            (records, info),
            args.output,
            max_images=args.max_images,
            seed=max(cfg.SEED, 0),
            roi_scale=cfg.MODEL.ROI_MASK_HEAD.ROI_SCALE,
        )
        print(f"{dataset}: {gallery.summary()} to {args.output}")
        drawn += gallery.drawn
    if not drawn:
        parser.exit(1, "error: no image was drawn\n")
