"""Benchmark reports: rows as text tables and json."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

from bcnet import files
from bcnet.evaluation.report import markdown_table
from benchmarks.row import BenchmarkRow

_HEADER = ("work", "per", "ours: median (range)", "peer: median (range)", "ratio", "required", "verdict", "peer")


def format_rows(rows: Sequence[BenchmarkRow]) -> str:
    """A text table of medians with the range over the repetitions, ratios and required ratios."""
    return text_table([_HEADER, *map(_cells, rows)])


def markdown_rows(rows: Sequence[BenchmarkRow]) -> str:
    """The table of `format_rows` in Markdown."""
    return markdown_table([_HEADER, *map(_cells, rows)])


def text_table(cells: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first line is the header."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def write_json(path: str | os.PathLike, records: Sequence[dict], environment: dict) -> None:
    """Writes a list of records, each with its environment, so that files can be merged."""
    files.write_json(path, [{**record, "environment": environment} for record in records])


def format_amount(values: Sequence[float], measure: str = "seconds") -> str:
    """Formats the median with the range, such as ``3.2 ms (3.1-3.9)``."""
    median = statistics.median(values)
    if measure == "bytes":
        scale, unit = 2**-20, "MiB"
    else:
        scale, unit = next(((s, u) for s, u in ((1, "s"), (1e3, "ms")) if median * s >= 1), (1e6, "us"))
    return f"{median * scale:.3g} {unit} ({min(values) * scale:.3g}-{max(values) * scale:.3g})"


def _cells(row: BenchmarkRow) -> tuple[str, ...]:
    if row.required is None:
        required = "-"
    else:
        required = f"<= {row.required:g}x its {row.cost_of}" if row.as_cost else f">= {row.required:g}x faster"
    if row.skipped:
        return row.work, row.unit, "-", "-", row.skipped, required, row.verdict, row.peer
    ratio = f"{row.ratio:.2f}x its {row.cost_of}" if row.as_cost else f"{row.ratio:.1f}x faster"
    measured = (format_amount(values, row.measure) for values in (row.ours, row.theirs))
    return row.work, row.unit, *measured, ratio, required, row.verdict or "-", row.peer
