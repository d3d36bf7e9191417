#!/usr/bin/env python
"""Compares mask heads on one trunk: trains every arm with every seed, writes a json of each arm and a report.

    python -m studies.heads --plan studies/heads_shapes.yaml --output output/heads

The same command resumes an interrupted study; with a frozen trunk (trunk: none), started a second time beside the
first, it shares the work with it, arm by arm. KEY VALUE pairs override values of the plan, for instance

    trunk none settings.MODEL.WEIGHTS output/quick_r18/model_final.pth settings.SOLVER.MAX_ITER 4000
"""

from __future__ import annotations

import argparse

from bcnet.cli.errors import USER_ERRORS, one_line_errors
from bcnet.training import NonFiniteLossError
from bcnet.training.interruption import TrainingInterrupted
from bcnet.training.run_log import set_up_logging
from studies.command_line import add_study_arguments, positive, require_output
from studies.heads import execute_heads_runs, load_heads_plan, write_heads_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_study_arguments(parser, "studies/heads_shapes.yaml", "output/heads", example="shapes/seed_1/*")
    parser.add_argument("--workers", type=positive, default=1, help="processes that generate scenes (default: 1)")
    arguments = parser.parse_args()
    require_output(parser, arguments)
    set_up_logging(arguments.output)
    with one_line_errors(parser, (*USER_ERRORS, NonFiniteLossError)):
        plan = load_heads_plan(arguments.plan, arguments.opts)
        if not arguments.report_only:
            runs = plan.runs(arguments.only or ["*"])
            try:
                execute_heads_runs(plan, arguments.output, runs, workers=arguments.workers)
            except (KeyboardInterrupt, TrainingInterrupted):
                parser.exit(130, "\ninterrupted; the same command resumes\n")
        print(write_heads_report(plan, arguments.output))


if __name__ == "__main__":
    main()
