#!/usr/bin/env python
"""Writes a COCO data set of synthetic scenes with occlusion and exact visible and amodal truth.

    python tools/make_synthetic.py --output datasets/synthetic --count 1000 --split train
    python tools/make_synthetic.py --output datasets/cutouts --count 1000 \\
        --annotations datasets/coco/annotations/instances_train2017.json --images datasets/coco/train2017
"""

from __future__ import annotations

import argparse
import os

from bcnet.data.synthetic import CutoutLibrary, SceneConfig, generate_dataset, occlusion_statistics
from bcnet.data.synthetic.config import POOLS, PRESETS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for annotations/ and images/")
    parser.add_argument("--count", type=int, required=True, help="number of scenes")
    parser.add_argument("--size", type=int, default=192, help="side of the images in pixels (default 192)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--split", default="train", help="name of this part; splits of one seed share no scene")
    parser.add_argument("--difficulty", choices=PRESETS, default="hard")
    parser.add_argument("--pool", choices=POOLS, default="all", help="textures and shapes; train and test are disjoint")
    parser.add_argument("--format", choices=("png", "jpg"), default="png")
    parser.add_argument("--annotations", help="COCO json: compose its instances rather than procedural objects")
    parser.add_argument("--images", help="image folder of --annotations")
    parser.add_argument("--include-truncated", action="store_true", help="cut out incomplete instances too")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of other parameters")
    arguments = parser.parse_args()
    if (arguments.annotations is None) != (arguments.images is None):
        parser.error("--annotations and --images go together")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    config = SceneConfig.preset(
        arguments.difficulty,
        image_size=arguments.size,
        texture_pool=arguments.pool,
        shape_pool=arguments.pool,
        image_format=arguments.format,
    )
    library = None
    if arguments.annotations:
        library = CutoutLibrary.from_files(
            arguments.annotations, arguments.images, whole_only=not arguments.include_truncated
        )
    annotation_file = generate_dataset(
        arguments.output,
        arguments.count,
        config,
        arguments.seed,
        arguments.workers,
        arguments.split,
        library=library,
        overwrite=arguments.overwrite,
        progress=True,
    )
    print(f"{annotation_file}: {occlusion_statistics(annotation_file)}")
    print(f"as a data set: coco:{annotation_file}:{os.path.join(arguments.output, 'images')}")


if __name__ == "__main__":
    main()
