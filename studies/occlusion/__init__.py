"""Controlled comparisons of mask heads: same scenes, schedule and seeds, one YAML per run."""

from studies.occlusion.plan import Run, StudyPlan, load_plan
from studies.occlusion.report import write_report
from studies.occlusion.runs import execute_runs

__all__ = ["Run", "StudyPlan", "execute_runs", "load_plan", "write_report"]
