"""``bcnet data occ-split``: selects the images of a COCO json in which objects overlap (COCO-OCC)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bcnet.data.coco_occ import DEFAULT_OVERLAP, OVERLAPS, THRESHOLD, build_coco_occ


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Selects the images of a COCO json in which objects overlap (COCO-OCC) and writes them as a COCO json."""
    parser = argparse.ArgumentParser(prog=prog, description=main.__doc__)
    parser.add_argument("--input", required=True, metavar="FILE", help="COCO json of instances")
    parser.add_argument("--output", required=True, metavar="FILE", help="json to write")
    parser.add_argument(
        "--overlap", choices=OVERLAPS, default=DEFAULT_OVERLAP, help="what overlap means (default: %(default)s)"
    )
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="at least this (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    args = parser.parse_args(arguments)
    shares = build_coco_occ(
        args.input, args.output, overlap=args.overlap, threshold=args.threshold, overwrite=args.overwrite
    )
    print(f"share of the images in which two objects overlap by {args.threshold} or more (the paper selects 20.1 %):")
    for name, share in shares.items():
        print(f"  {name:15}{share:7.1%}{'  <- written' if name == args.overlap else ''}")
