"""``bcnet data annotate``: adds occluder masks to a COCO json."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from bcnet.data.occluder_annotations import FORMATS, convert_annotations


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Adds the occluder mask of every annotation (bg_object_segmentation) to a COCO json."""
    parser = argparse.ArgumentParser(prog=prog, description=main.__doc__)
    parser.add_argument("--input", required=True, metavar="FILE", help="COCO json of instances")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="json to write; partial results go to <output>.partial"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="rle", help="rle is smaller; polygon is what the published code reads"
    )
    parser.add_argument(
        "--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    args = parser.parse_args(arguments)
    try:
        statistics = convert_annotations(
            args.input, args.output, format=args.format, workers=args.workers, overwrite=args.overwrite, progress=True
        )
    except KeyboardInterrupt:
        parser.exit(130, f"\ninterrupted; run the same command again to continue from {args.output}.partial\n")
    print(statistics.format())
