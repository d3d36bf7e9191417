#!/usr/bin/env python
"""Evaluates a COCO results file: box, mask and boundary AP, AP by occlusion level, counts at a score threshold."""

from __future__ import annotations

import argparse
import logging

from bcnet.evaluation import evaluate_files, format_report, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", required=True, help="COCO annotation file")
    parser.add_argument("--results", required=True, help="COCO results file, as evaluation writes it")
    parser.add_argument("--output", help="json file for all the metrics")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="for the counts per class (default: 0.5)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        metrics = evaluate_files(args.annotations, args.results, args.score_threshold)
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(format_report(metrics))
    if args.output:
        write_json(args.output, metrics)
        print(f"\nWrote {args.output}")


if __name__ == "__main__":
    main()
