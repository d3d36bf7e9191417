"""BenchmarkRow: repeated timings of one task in two implementations, with the required ratio."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class BenchmarkRow:
    """Repeated timings of one task in two implementations on the same data.

    Attributes:
        work: the measured task and its input.
        peer: the implementation compared with.
        ours, theirs: seconds (or bytes) of each repetition; both empty if the row was skipped.
        unit: unit of work that they refer to, such as "instance".
        name: name by which the row is selected.
        required: required speed-up of ours, or with `as_cost` the maximum ratio of our seconds (or bytes) to the
            peer's; None if nothing is required.
        as_cost: the ratio is our seconds or bytes divided by the peer's, instead of the speed-up.
        measure: "seconds" or "bytes".
        skipped: reason why nothing was measured.
    """

    work: str
    peer: str
    ours: Sequence[float]
    theirs: Sequence[float]
    unit: str
    name: str = ""
    required: float | None = None
    as_cost: bool = False
    measure: str = "seconds"
    skipped: str = ""

    @property
    def ratio(self) -> float | None:
        """The ratio of the medians, see `as_cost`; None if the row was skipped."""
        if self.skipped:
            return None
        return self._ratio(statistics.median(self.ours), statistics.median(self.theirs))

    @property
    def ratios(self) -> list[float]:
        """The ratio of each repetition, from consecutive measurements under similar load."""
        return [self._ratio(ours, theirs) for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        """ "met", "not met" or "not measured"; empty if nothing is required."""
        if self.required is None:
            return ""
        if self.ratio is None:
            return "not measured"
        is_met = self.ratio <= self.required if self.as_cost else self.ratio >= self.required
        return "met" if is_met else "not met"

    @property
    def cost_of(self) -> str:
        """The measured quantity in a word."""
        return "memory" if self.measure == "bytes" else "time"

    def _ratio(self, ours: float, theirs: float) -> float:
        return ours / theirs if self.as_cost else theirs / ours

    def to_json(self) -> dict:
        values = {
            "name": self.name,
            "work": self.work,
            "peer": self.peer,
            "unit": self.unit,
            f"ours_{self.measure}": list(self.ours),
            f"peer_{self.measure}": list(self.theirs),
            "ratio": self.ratio,
            "ratios": self.ratios,
            "ratio_is": f"ours / peer, {self.measure}" if self.as_cost else f"peer / ours, {self.measure}",
            "required": self.required,
            "verdict": self.verdict,
        }
        if self.skipped:
            return values | {"skipped": self.skipped}
        return values | {"ours_median": statistics.median(self.ours), "peer_median": statistics.median(self.theirs)}
