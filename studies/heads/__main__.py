#!/usr/bin/env python
"""Compares mask heads on one trunk: trains every arm with every seed, writes a json of each arm and a report.

    python -m studies.heads --plan studies/heads_shapes.yaml --output output/heads

The same command resumes an interrupted study; with a frozen trunk (trunk: none), started a second time beside the
first, it shares the work with it, arm by arm. KEY VALUE pairs override values of the plan, for instance

    trunk none settings.MODEL.WEIGHTS output/quick_r18/model_final.pth settings.SOLVER.MAX_ITER 4000
"""

from __future__ import annotations

import argparse

from bcnet.cli.arguments import add_import_argument
from bcnet.cli.errors import one_line_errors
from bcnet.training.interruption import TrainingInterrupted
from bcnet.training.run_log import set_up_logging
from studies.heads import execute_heads_runs, load_heads_plan, write_heads_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="studies/heads_shapes.yaml", help="YAML file (default: %(default)s)")
    parser.add_argument("--output", default="output/heads", help="folder for data, runs, results and report")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="select runs by name, such as 'shapes/seed_1/*'"
    )
    add_import_argument(parser)
    parser.add_argument("--workers", type=int, default=1, help="processes that generate scenes (default: 1)")
    parser.add_argument("--report-only", action="store_true", help="report the finished arms without starting others")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="values of the plan to override")
    arguments = parser.parse_args()
    set_up_logging(arguments.output)
    with one_line_errors(parser):
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
