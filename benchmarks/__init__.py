"""Timings of this package's parts against the way they are done elsewhere, both in one process."""

from benchmarks.report import format_rows, markdown_rows
from benchmarks.row import BenchmarkRow
from benchmarks.settings import BenchmarkSettings

__all__ = ["BenchmarkRow", "BenchmarkSettings", "format_rows", "markdown_rows"]
