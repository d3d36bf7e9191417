"""Timings of this package's parts against the way they are done elsewhere, both in one process."""

from bcnet.benchmark.report import format_rows, markdown_rows
from bcnet.benchmark.row import BenchmarkRow
from bcnet.benchmark.settings import BenchmarkSettings

__all__ = ["BenchmarkRow", "BenchmarkSettings", "format_rows", "markdown_rows"]
