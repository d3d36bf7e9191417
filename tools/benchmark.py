#!/usr/bin/env python
"""Times this package's parts against the way they are done elsewhere, and prints medians, ranges and ratios."""

from __future__ import annotations

import argparse
import json

from bcnet.benchmark import format_rows
from bcnet.benchmark.occluders import benchmark_occluders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", help="COCO json for the occluder masks (default: random scenes)")
    parser.add_argument("--max-images", type=int, help="of the COCO json (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--json", help="file for the timings")
    args = parser.parse_args()
    try:
        rows = benchmark_occluders(args.annotations, repeats=args.repeats, max_images=args.max_images)
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(format_rows(rows))
    if args.json:
        with open(args.json, "w") as file:
            json.dump([row.to_json() for row in rows], file, indent=2)


if __name__ == "__main__":
    main()
