"""``bcnet predict``: inference on images and videos; writes the detections as a COCO json, and as pictures."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments, add_model_arguments, default_to_packaged, parse_with_keys
from bcnet.words import counted

EPILOG = """examples:
  %(prog)s --input photo.jpg --pictures pictures
  %(prog)s --weights output/quick/model_final.pth --input photos/ --pictures pictures
  %(prog)s --weights output/quick/model_final.pth --input photos/ "more/*.jpg" --output found.json --pictures pictures
  %(prog)s --weights output/quick/model_final.pth --input walk.mp4 --output walk.json --pictures pictures --layers
  %(prog)s --weights output/quick/model_final.pth --input aerial.tif --output aerial.json --tile 640 --overlap 0.2

The weights may be a file of bcnet export, such as model.onnx, which runs without torch.
Instances in videos have a track_id, which stays with them from frame to frame and while others hide them (this needs
the extra "video": pip install 'bcnet[video]').
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Detects the instances in images and videos and writes them as a COCO json: boxes, scores, classes, masks."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="INPUT",
        help="image and video files, URLs, folders, patterns, data set names or specs",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="json file to write (default: predictions.json in the folder of --pictures)"
    )
    parser.add_argument("--pictures", metavar="FOLDER", help="folder for a picture of each image or video")
    parser.add_argument(
        "--layers",
        action="store_true",
        help="the occluder layer too: occluder masks, occlusion relations, depth order; pictures are sheets of all",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        help="lowest score; in videos of an instance's first detection (default: %(default)s)",
    )
    parser.add_argument(
        "--mask-threshold",
        type=float,
        default=0.5,
        help="minimum probability for a pixel to count as mask (default: %(default)s)",
    )
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS", help="predict on tiles of this side: for large images and small objects"
    )
    parser.add_argument(
        "--overlap", type=float, default=0.2, help="share of its side that a tile has in common with the next one"
    )
    parser.add_argument("--max-detections", type=int, help="maximum per image (default: TEST.DETECTIONS_PER_IMAGE)")
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run, whose results are in <output>.partial"
    )
    parser.add_argument("--batch-size", type=int, default=4, help="images at once (default: %(default)s)")
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
    args = parse_with_keys(parser, arguments, "input")
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    if args.output is None:
        if args.pictures is None:
            parser.error("name what to write: --output FILE.json, --pictures FOLDER, or both")
        args.output = os.path.join(args.pictures, "predictions.json")
    if not args.output.endswith(".json"):
        raise ValueError(f"--output names the json file to write, got {args.output!r}")
    default_to_packaged(args, "lite-detector")
    from bcnet.cli.models import load_model
    from bcnet.data import find_images
    from bcnet.data.videos import is_video
    from bcnet.prediction.files import predict_files
    from bcnet.progress import progress_wanted

    files = find_images(args.input, videos=True)
    tensors = args.pictures is not None or args.tile is not None or any(map(is_video, files))
    model = load_model(args, tensors=tensors)
    try:
        summary = predict_files(
            model,
            files,
            args.output,
            pictures=args.pictures,
            with_occluder=args.layers,
            score_threshold=args.score_threshold,
            mask_threshold=args.mask_threshold,
            max_detections=args.max_detections,
            batch_size=args.batch_size,
            tile=args.tile,
            overlap=args.overlap,
            resume=args.resume,
            progress=progress_wanted(),
        )
    except KeyboardInterrupt:
        parser.exit(130, f"\ninterrupted; {args.output} holds the images so far, and --resume continues after them\n")
    print(f"{summary}, in {args.output}" + (f" and {args.pictures}{os.sep}" if args.pictures else ""))
    if not summary.images:
        parser.exit(1, "error: no image was predicted\n")
    if summary.failures:
        print(f"warning: {len(summary.failures)} of {counted(len(files), 'image')} failed, see above", file=sys.stderr)
