#!/usr/bin/env python
"""Evaluates a COCO results file: box, mask and boundary AP, AP and recall under occlusion, counts at a score threshold;
and amodal masks, hidden parts and the order of depth where the annotations have them.
"""

from __future__ import annotations

import argparse
import logging

from bcnet.evaluation import evaluate_files, format_report, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", required=True, help="COCO annotation file, or a data set's name or spec")
    parser.add_argument("--results", required=True, help="COCO results file, as evaluation writes it")
    parser.add_argument("--output", help="json file for all the metrics")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="for counts and relations (default: 0.5)")
    parser.add_argument(
        "--mask-target", choices=("visible", "amodal"), default="visible", help="what the model was trained to find"
    )
    parser.add_argument(
        "--split-lists",
        nargs=2,
        metavar=("OCCLUDED", "SEPARATED"),
        help="the lists of Occluded COCO and Separated COCO, for recall (default: split by the annotations)",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    lists = dict(zip(("occluded", "separated"), args.split_lists, strict=True)) if args.split_lists else None
    try:
        metrics = evaluate_files(
            args.annotations,
            args.results,
            args.score_threshold,
            mask_target=args.mask_target,
            split_lists=lists,
        )
    except (OSError, ValueError, KeyError) as error:
        parser.exit(1, f"error: {error.args[0] if isinstance(error, KeyError) else error}\n")
    print(format_report(metrics))
    if args.output:
        write_json(args.output, metrics)
        print(f"\nWrote {args.output}")


if __name__ == "__main__":
    main()
