#!/usr/bin/env python
"""Times this package's parts against the way they are done elsewhere, and prints medians, ranges and ratios.

python tools/benchmark.py --device cuda --precision bf16 --json timings.json
python tools/benchmark.py --rows targets paste --threads 1
python tools/benchmark.py --quick
"""

from __future__ import annotations

import argparse

import torch

from bcnet.benchmark import BenchmarkSettings, format_rows, markdown_rows
from bcnet.benchmark.report import write_json
from bcnet.benchmark.settings import DEFAULT_CONFIG, PRECISIONS
from bcnet.benchmark.suite import ROWS, describe_environment, run_rows


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="ROW", help=f"default: all of {', '.join(ROWS)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of the networks (default: %(default)s)"
    )
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="of our Faster R-CNN (default: %(default)s)")
    parser.add_argument("--repeats", type=int, help="of each way, in turns (default: 5; with --quick 2)")
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own)")
    parser.add_argument("--quick", action="store_true", help="small images and networks, to try it")
    parser.add_argument("--annotations", help="COCO json for the occluder masks; without --rows, that row alone")
    parser.add_argument("--max-images", type=int, help="of the COCO json (default: all)")
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    parser.add_argument("--json", help="file for the timings")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    names = args.rows or (["occluders"] if args.annotations else list(ROWS))
    try:
        settings = BenchmarkSettings(
            device=args.device,
            precision=args.precision,
            config=args.config,
            repeats=args.repeats or (2 if args.quick else 5),
            quick=args.quick,
            annotations=args.annotations,
            max_images=args.max_images,
        )
        rows = run_rows(names, settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error
    print(markdown_rows(rows) if args.markdown else format_rows(rows))
    if args.json:
        write_json(args.json, [row.to_json() for row in rows], describe_environment(settings))


if __name__ == "__main__":
    main()
