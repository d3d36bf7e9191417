#!/usr/bin/env python
"""Benchmarks this package against public reference implementations, and prints medians, ranges and ratios.

python -m benchmarks --device cuda --precision bf16 --json timings.json
python -m benchmarks --rows targets paste --threads 1
python -m benchmarks --stages --json stages.json
python -m benchmarks --scaling plots/
python -m benchmarks --quick
"""

from __future__ import annotations

import argparse

import torch

from benchmarks import BenchmarkSettings, format_rows, markdown_rows
from benchmarks.report import write_json
from benchmarks.scaling import measure_growth, write_growth
from benchmarks.settings import DEFAULT_CONFIG, PRECISIONS
from benchmarks.stages import stage_tables
from benchmarks.suite import ROWS, describe_environment, run_rows


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=ROWS,
        metavar="ROW",
        help=f"of {', '.join(ROWS)} (default: all; none with --stages or --scaling, occluders with --annotations)",
    )
    parser.add_argument(
        "--stages", action="store_true", help="time the stages of an inference and a training iteration"
    )
    parser.add_argument("--scaling", metavar="FOLDER", help="folder for plots and json files of the scaling benchmarks")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="precision (default: %(default)s)")
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="config of our Faster R-CNN (default: %(default)s)")
    parser.add_argument("--peer-channels-last", action="store_true", help="channels-last for torchvision too")
    parser.add_argument("--repeats", type=int, help="timed calls of each variant (default: 5; with --quick 2)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's default)")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time, for a busy machine; use with --threads 1")
    parser.add_argument("--quick", action="store_true", help="small images and networks, as a smoke test")
    parser.add_argument("--annotations", help="COCO json of the rows occluders and mapper (default: random scenes)")
    parser.add_argument("--images", help="folder of the json's images, for the row mapper")
    parser.add_argument("--max-images", type=int, help="maximum number of images of the COCO json (default: all)")
    parser.add_argument("--evaluation-images", type=int, help="images of the evaluation benchmark (default: 500)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--json", help="output file for the timings of rows and stages")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    names = args.rows
    if names is None:
        names = ["occluders"] if args.annotations else [] if args.stages or args.scaling else list(ROWS)
    try:
        settings = BenchmarkSettings(
            device=args.device,
            precision=args.precision,
            config=args.config,
            peer_channels_last=args.peer_channels_last,
            repeats=args.repeats if args.repeats is not None else 2 if args.quick else 5,
            cpu_time=args.cpu_time,
            quick=args.quick,
            annotations=args.annotations,
            images=args.images,
            max_images=args.max_images,
            evaluation_images=args.evaluation_images,
        )
        rows = run_rows(names, settings)
        if rows:
            print(markdown_rows(rows) if args.markdown else format_rows(rows))
        if settings.quick:
            print("\nSmall images and networks (--quick): ratios and verdicts are meaningless.")
        tables = stage_tables(settings) if args.stages else []
        for table in tables:
            print("\n" + table.format(markdown=args.markdown))
        environment = describe_environment(settings)
        if args.json:
            write_json(args.json, [measured.to_json() for measured in (*rows, *tables)], environment)
        for growth in measure_growth(settings) if args.scaling else ():
            write_growth(growth, args.scaling, environment)
            print("\n" + growth.format(markdown=args.markdown))
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
