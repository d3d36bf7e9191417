"""Benchmarks: this package against public reference implementations, both in one process."""

from benchmarks.report import format_rows, markdown_rows
from benchmarks.row import BenchmarkRow
from benchmarks.settings import BenchmarkSettings

__all__ = ["BenchmarkRow", "BenchmarkSettings", "format_rows", "markdown_rows"]
