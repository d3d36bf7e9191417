"""Controlled comparisons of mask heads: same scenes, same schedule, same seeds, one YAML per run."""

from bcnet.study.plan import Run, StudyPlan, load_plan
from bcnet.study.report import write_report
from bcnet.study.runs import execute_runs

__all__ = ["Run", "StudyPlan", "execute_runs", "load_plan", "write_report"]
