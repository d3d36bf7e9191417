"""What a benchmark returns, and how it is printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class BenchmarkRow:
    """Repeated timings of one piece of work, done in two ways on the same data.

    Attributes:
        work: what is timed, and on what.
        peer: what it is compared with.
        ours, theirs: seconds of each repetition.
        unit: what the seconds are for, such as "instance".
    """

    work: str
    peer: str
    ours: Sequence[float]
    theirs: Sequence[float]
    unit: str

    @property
    def ratio(self) -> float:
        """How many times faster ours is: the medians' ratio."""
        return statistics.median(self.theirs) / statistics.median(self.ours)

    def to_json(self) -> dict:
        return {
            "work": self.work,
            "peer": self.peer,
            "unit": self.unit,
            "ours_seconds": list(self.ours),
            "peer_seconds": list(self.theirs),
            "ours_median": statistics.median(self.ours),
            "peer_median": statistics.median(self.theirs),
            "ratio": self.ratio,
        }


def format_rows(rows: Sequence[BenchmarkRow]) -> str:
    """A table: medians with the range over the repetitions, and the ratio."""
    cells = [("work", "per", "ours: median (range)", "peer: median (range)", "ratio", "peer")]
    cells += [
        (row.work, row.unit, _timing(row.ours), _timing(row.theirs), f"{row.ratio:.1f}x", row.peer) for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _timing(seconds: Sequence[float]) -> str:
    median = statistics.median(seconds)
    scale, unit = next(((s, u) for s, u in ((1, "s"), (1e3, "ms")) if median * s >= 1), (1e6, "us"))
    return f"{median * scale:.3g} {unit} ({min(seconds) * scale:.3g}-{max(seconds) * scale:.3g})"
