"""One trunk, many heads: mask heads compared on the same RoIs of one backbone, instance by instance."""

from studies.heads.plan import HeadsPlan, HeadsRun, load_heads_plan
from studies.heads.report import write_heads_report
from studies.heads.runs import execute_heads_runs

__all__ = ["HeadsPlan", "HeadsRun", "execute_heads_runs", "load_heads_plan", "write_heads_report"]
