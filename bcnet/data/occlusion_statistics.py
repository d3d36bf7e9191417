"""Occlusion statistics of an annotation file, counted and printed by the occluder conversion."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from bcnet.data.findings import Findings


@dataclass
class OcclusionStatistics:
    """Counts over the images of an annotation file.

    Attributes:
        images, annotations, crowds: totals.
        instances: annotations that are neither crowds nor skipped.
        occluded: instances with an occluder mask.
        occluder_share, covered_share: sums over the occluded instances (`bcnet.occlusion.shares`).
        skipped, noted: numbers of skipped annotations and of other findings, by reason.
        examples: the first message of each reason.
    """

    images: int = 0
    annotations: int = 0
    crowds: int = 0
    instances: int = 0
    occluded: int = 0
    occluder_share: float = 0.0
    covered_share: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add_findings(self, findings: Findings) -> None:
        """Counts the reader's findings: faults of annotations as skipped, all others as noted."""
        for fault in findings.faults:
            counts = self.skipped if fault.of_annotation else self.noted
            counts[fault.reason] += 1
            self.examples.setdefault(fault.reason, f"{fault.label}: {fault.message}")
        for counts, tallies in ((self.skipped, findings.dropped), (self.noted, findings.noted)):
            for what, tally in tallies.items():
                counts[what] += tally.count
                message = f": {tally.message}" if tally.message else ""
                self.examples.setdefault(what, tally.labels[0] + message)

    def format(self) -> str:
        """The summary as lines of text."""
        occluded = max(self.occluded, 1)
        lines = [
            f"images                       {self.images}",
            f"annotations                  {self.annotations}",
            f"  crowds                     {self.crowds}",
            f"  malformed, skipped         {self.skipped.total()}",
            f"  instances                  {self.instances}",
            f"    with an occluder         {self.occluded} ({self.occluded / max(self.instances, 1):.1%})",
            f"      occluder's share of the pixels of both masks, mean   {self.occluder_share / occluded:.1%}",
            f"      share of the mask that lies under the occluder, mean {self.covered_share / occluded:.1%}",
        ]
        for title, counts in (("skipped", self.skipped), ("noted", self.noted)):
            lines += [
                f"{title}: {count} x {reason} (first: {self.examples[reason]})"
                for reason, count in counts.most_common()
            ]
        return "\n".join(lines)
