"""Timings of this package's parts against the way they are done elsewhere, both in one process."""

from bcnet.benchmark.row import BenchmarkRow, format_rows

__all__ = ["BenchmarkRow", "format_rows"]
