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
import signal

from bcnet.cli.errors import one_line_errors
from bcnet.training.run_log import set_up_logging
from studies.command_line import add_study_arguments, positive, require_output
from studies.occlusion import execute_runs, load_plan, write_report
from studies.occlusion.scenes import make_scenes

logger = logging.getLogger("bcnet.studies.occlusion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_study_arguments(parser, "studies/reduced.yaml", "output/study", example="shapes/fcos/*/seed_1")
    parser.add_argument(
        "--jobs", type=positive, default=1, help="parallel runs, distributed over the GPUs (default: 1)"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads per run (default: cores / jobs)")
    arguments = parser.parse_args()
    require_output(parser, arguments)
    set_up_logging(arguments.output)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that the runs are stopped too
    failed = []
    with one_line_errors(parser):
        plan = load_plan(arguments.plan, arguments.opts)
        if not arguments.report_only:
            runs = plan.chosen(arguments.only or ["*"])
            num_classes = make_scenes(plan, arguments.output, os.cpu_count() or 1, runs)
            try:
                failed = execute_runs(
                    plan,
                    arguments.output,
                    num_classes,
                    runs=runs,
                    jobs=arguments.jobs,
                    threads=arguments.threads,
                    imports=arguments.imports,
                )
            except KeyboardInterrupt:
                parser.exit(130, "\ninterrupted; checkpoints were written, the same command resumes\n")
        if failed:
            logger.error("failed: %s; see console.txt in their folders", ", ".join(run.name for run in failed))
        print(write_report(plan, arguments.output))
    if failed:
        parser.exit(1, f"{len(failed)} runs failed; see console.txt in their folders\n")


if __name__ == "__main__":
    main()
