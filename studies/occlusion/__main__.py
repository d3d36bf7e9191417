#!/usr/bin/env python
"""Compares mask heads under occlusion: generates scenes, trains every arm with every seed, writes a report.

    python -m studies.occlusion --plan studies/reduced.yaml --output output/study --jobs 2

An interrupted study is resumed by the same command. KEY VALUE pairs override values of the plan, for instance

    data.cutouts.train.annotations my/train.json data.cutouts.train.images my/images settings.SOLVER.MAX_ITER 2000
"""

from __future__ import annotations

import argparse
import logging
import os

from bcnet.training.run_log import set_up_logging
from studies.occlusion import execute_runs, load_plan, write_report
from studies.occlusion.scenes import make_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="studies/reduced.yaml", help="YAML file (default: %(default)s)")
    parser.add_argument("--output", default="output/study", help="folder for scenes, runs and report")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, distributed over the GPUs (default: 1)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads per run (default: cores / jobs)")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help="select runs by name, such as 'shapes/fcos/*/seed_1'; may be repeated",
    )
    parser.add_argument("--report-only", action="store_true", help="report the completed runs without starting others")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="values of the plan to override")
    arguments = parser.parse_args()
    set_up_logging(arguments.output)
    failed = []
    try:
        plan = load_plan(arguments.plan, arguments.opts)
        if not arguments.report_only:
            runs = plan.chosen(arguments.only or ["*"])
            num_classes = make_scenes(plan, arguments.output, os.cpu_count() or 1, runs)
            failed = execute_runs(
                plan, arguments.output, num_classes, runs=runs, jobs=arguments.jobs, threads=arguments.threads
            )
        print(write_report(plan, arguments.output))
    except (OSError, ValueError, KeyError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted; checkpoints were written, the same command resumes\n")
    if failed:
        logging.getLogger("bcnet").error("failed: %s", ", ".join(run.name for run in failed))
        parser.exit(1, f"{len(failed)} runs failed; see console.txt in their folders\n")


if __name__ == "__main__":
    main()
