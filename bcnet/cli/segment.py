"""``bcnet segment``: masks of both layers for the boxes of any detector, from a COCO results file."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments, add_model_arguments, default_to_packaged
from bcnet.words import counted

EPILOG = """example:
  %(prog)s --boxes results.json --images val2017 --output masks.json
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Adds masks, occluders and occlusion relations to the boxes of a COCO results file of any detector."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--boxes", required=True, metavar="FILE", help="COCO results, or a json that bcnet predict wrote"
    )
    parser.add_argument("--images", required=True, metavar="FOLDER", help="folder of the images")
    parser.add_argument("--output", required=True, metavar="FILE", help="json file to write")
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        help="COCO json with the file name of each image id (default: the list of images of --boxes, else the file "
        "names: 000000000139.jpg is image 139)",
    )
    parser.add_argument("--pictures", metavar="FOLDER", help="folder for a picture of each image")
    parser.add_argument(
        "--layers", action="store_true", help="pictures are sheets of both layers, relations and depth order"
    )
    parser.add_argument("--score-threshold", type=float, help="lowest score of the boxes (default: all)")
    parser.add_argument(
        "--mask-threshold",
        type=float,
        default=0.5,
        help="minimum probability for a pixel to count as mask (default: %(default)s)",
    )
    parser.add_argument("--masks-only", action="store_true", help="without the occluder layer and the relations")
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run, whose results are in <output>.partial"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="autocast precision (default: %(default)s)",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say what is loaded and done, not only what goes wrong"
    )
    add_config_arguments(parser)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    if not args.output.endswith(".json"):
        raise ValueError(f"--output names the json file to write, got {args.output!r}")
    default_to_packaged(args, "lite")
    from bcnet.cli.models import load_model
    from bcnet.prediction.segment_files import segment_file
    from bcnet.progress import progress_wanted

    model = load_model(args, tensors=args.pictures is not None)
    try:
        summary = segment_file(
            model,
            args.boxes,
            args.images,
            args.output,
            annotations=args.annotations,
            pictures=args.pictures,
            layers=args.layers,
            score_threshold=args.score_threshold,
            mask_threshold=args.mask_threshold,
            with_occluder=not args.masks_only,
            resume=args.resume,
            progress=progress_wanted(),
        )
    except KeyboardInterrupt:
        parser.exit(130, f"\ninterrupted; {args.output}.partial holds the results so far, and --resume continues\n")
    print(f"{summary}, in {args.output}" + (f" and {args.pictures}{os.sep}" if args.pictures else ""))
    if summary.failures and not summary.images:
        parser.exit(1, "error: no image was segmented\n")
    if summary.failures:
        print(f"warning: {counted(len(summary.failures), 'image')} failed, see above", file=sys.stderr)
