"""``bcnet data convert``: converts annotations between the formats of annotation tools and COCO."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from bcnet.cli.arguments import add_import_argument
from bcnet.words import counted

EXAMPLES = """examples:
  labelme to COCO:        %(prog)s --from labelme --input folder --output coco.json
  a split of its own:     %(prog)s --from labelme --input folder --output coco.json --split 0.8 --seed 1
  a split of data.yaml:   %(prog)s --from yolo --input data.yaml train --output coco.json
  images elsewhere:       %(prog)s --from cvat --input annotations.xml --images photos --output coco.json
  InstaOrder over COCO:   %(prog)s --from instaorder --input orders.json coco.json --images train2017 \\
                            --output ordered.json
  results for labelme:    %(prog)s --from coco --input results.json --images . --to labelme --output folder
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Converts a data set, or results of `bcnet predict`, from a format that can be read to one that can be written."""
    args = _parse(arguments, prog)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    from bcnet.data.conversion import convert_dataset

    result = convert_dataset(
        args.source_format,
        [*args.input, *([args.images] if args.images else [])],
        args.output,
        target_format=args.target_format,
        train_share=args.split,
        seed=args.seed,
        crowds_as_objects=args.crowds_as_objects,
        amodal_shapes=args.amodal_shapes,
        overwrite=args.overwrite,
    )
    for split, output in result.outputs.items():
        part = f"{split}: " if split else ""
        annotations = counted(result.instances[split], "annotation")
        print(f"{part}{counted(result.images[split], 'image')}, {annotations} in {output}")
        if args.target_format == "coco":
            print(f"as a data set: coco:{output}:{result.image_root}")
    for what, count in result.lost.items():
        print(f"not in {args.target_format}: {count} {what}")
    if args.target_format == "yolo" and args.split is None:
        print("data.yaml has the split train alone, and ultralytics asks for val too: --split 0.8 makes both")
    if not any(result.instances.values()):
        print("no image has an object: training rejects such a data set")
    if result.missing:
        print(f"missing: {counted(len(result.missing), 'image')}, the first is {result.missing[0]}")
    if len(result.missing) == sum(result.images.values()):
        print("no image was found: name their folder by --images", file=sys.stderr)
        sys.exit(1)


def _parse(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    from bcnet.data.catalog import READER_REGISTRY
    from bcnet.data.exporters import WRITER_REGISTRY

    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="source_format", required=True, metavar="FORMAT", help=", ".join(READER_REGISTRY.names())
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="paths of a spec of the format, without the images",
    )
    parser.add_argument("--images", metavar="FOLDER", help="folder of the images, where the format does not say it")
    parser.add_argument(
        "--to",
        dest="target_format",
        default="coco",
        metavar="FORMAT",
        help=f"{', '.join(WRITER_REGISTRY.names())} (default: %(default)s)",
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="json to write, or folder for other formats")
    parser.add_argument(
        "--split", type=float, metavar="SHARE", help="share of the images for training, such as 0.8; the rest is val"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
    parser.add_argument(
        "--crowds-as-objects",
        action="store_true",
        help="crowds with a mask are objects: CVAT's COCO export marks every brush mask as a crowd",
    )
    parser.add_argument(
        "--amodal-shapes",
        action="store_true",
        help="shapes are whole objects, hidden parts included: derive the visible masks by the depth order",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing file, or in a folder the files that an earlier conversion wrote; others stay",
    )
    add_import_argument(parser)
    args = parser.parse_args(arguments)
    if args.images and args.source_format in READER_REGISTRY:
        reader = READER_REGISTRY.get(args.source_format)
        if not reader.parts[-1].folder or len(reader.parts) == 1:
            parser.error(f"--images: the files of {args.source_format} say where the images are ({reader.form})")
    return args
