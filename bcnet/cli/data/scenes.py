"""``bcnet data scenes``: generates a COCO data set of synthetic occluded scenes with visible and amodal masks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from bcnet.data.synthetic import CutoutLibrary, SceneConfig, generate_dataset, occlusion_statistics
from bcnet.data.synthetic.config import POOLS, PRESETS

EXAMPLES = """examples:
  textured shapes:     %(prog)s --output datasets/synthetic --count 1000 --split train
  objects of a json:   %(prog)s --output datasets/cutouts --count 1000 \\
                         --annotations datasets/coco/annotations/instances_train2017.json \\
                         --images datasets/coco/train2017
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Writes a COCO data set of synthetic scenes with occlusion, and exact visible and amodal masks."""
    args = _parse(arguments, prog)
    config = SceneConfig.preset(
        args.difficulty,
        image_size=args.size,
        texture_pool=args.pool,
        shape_pool=args.pool,
        image_format=args.format,
    )
    library = None
    if args.annotations:
        library = CutoutLibrary.from_files(args.annotations, args.images, whole_only=not args.include_truncated)
    annotation_file = generate_dataset(
        args.output,
        args.count,
        config,
        args.seed,
        args.workers,
        args.split,
        library=library,
        overwrite=args.overwrite,
        progress=True,
    )
    print(f"{annotation_file}: {occlusion_statistics(annotation_file)}")
    print(f"as a data set: coco:{annotation_file}:{os.path.join(args.output, 'images')}")


def _parse(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for annotations/ and images/")
    parser.add_argument("--count", type=int, required=True, help="number of scenes")
    parser.add_argument("--size", type=int, default=192, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--split", default="train", help="name of this part; splits of one seed share no scene")
    parser.add_argument("--difficulty", choices=PRESETS, default="hard", help="(default: %(default)s)")
    parser.add_argument("--pool", choices=POOLS, default="all", help="textures and shapes; train and test are disjoint")
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="of the images (default: %(default)s)")
    parser.add_argument(
        "--annotations", metavar="FILE", help="COCO json: compose its instances rather than procedural objects"
    )
    parser.add_argument("--images", metavar="FOLDER", help="image folder of --annotations")
    parser.add_argument("--include-truncated", action="store_true", help="cut out incomplete instances too")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of other parameters")
    args = parser.parse_args(arguments)
    if (args.annotations is None) != (args.images is None):
        parser.error("--annotations and --images go together")
    return args
