"""Findings: malformed and unusual entries of an annotation file, collected while reading and reported once.

All readers apply the same rules; the caller decides how to handle faults. Training and evaluation reject the file
(`Findings.raise_if_faulty`), the occluder conversion skips the entry and counts it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

_MAX_LISTED = 5  # entries named in a message


class AnnotationError(ValueError):
    """An unusable entry: the message has the actual value, `reason` the kind of fault, by which it is counted."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Fault(NamedTuple):
    """An unusable entry."""

    label: str  # such as "annotation 12"
    reason: str  # the same for all faults of a kind
    message: str  # with the actual value
    of_annotation: bool  # False: of an image, or of the file as a whole


@dataclass
class Tally:
    """Number of entries with the same finding, labels of the first ones, and the message of the first."""

    count: int = 0
    labels: list[str] = field(default_factory=list)
    message: str = ""

    def add(self, label: str, message: str, count: int) -> None:
        self.count += count
        if len(self.labels) <= _MAX_LISTED:
            self.labels.append(label)
            self.message = self.message or message

    @property
    def listed(self) -> str:
        more = ", ..." if len(self.labels) > _MAX_LISTED else ""
        return ", ".join(self.labels[:_MAX_LISTED]) + more


_collected: ContextVar[list[Findings] | None] = ContextVar("collected_findings", default=None)


@contextlib.contextmanager
def collected_findings() -> Iterator[list[Findings]]:
    """Context in which readers skip unusable entries instead of rejecting the file, and log nothing.

    Yields:
        The findings of what is read in the block, one for each file.
    """
    collected: list[Findings] = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


class Findings:
    """The malformed and unusual entries of one annotation file.

    Attributes:
        annotation_file: its path.
        faults: unusable entries.
        dropped: entries that every caller skips, by description.
        noted: unusual but usable entries, by description.
        hints: likely common causes of the faults, such as a wrong unit of the coordinates.
    """

    def __init__(self, annotation_file: str) -> None:
        self.annotation_file = annotation_file
        self.faults: list[Fault] = []
        self.dropped: dict[str, Tally] = {}
        self.noted: dict[str, Tally] = {}
        self.hints: list[str] = []

    def fault(self, label: str, error: ValueError, *, of_annotation: bool = True) -> None:
        """Adds an unusable entry; errors without a `reason` are counted by their message."""
        self.faults.append(Fault(label, getattr(error, "reason", str(error)), str(error), of_annotation))

    def drop(self, what: str, label: str, message: str = "") -> None:
        """Adds a skipped entry; `what` is a plural noun phrase, because a count precedes it."""
        self.dropped.setdefault(what, Tally()).add(label, message, 1)

    def note(self, what: str, label: str, message: str = "", count: int = 1) -> None:
        """Adds an unusual entry that is kept; `what` is a plural noun phrase, because a count precedes it."""
        self.noted.setdefault(what, Tally()).add(label, message, count)

    def _collect(self) -> bool:
        """Adds itself to the list of `collected_findings`; whether there is one."""
        collected = _collected.get()
        if collected is not None and not any(findings is self for findings in collected):
            collected.append(self)
        return collected is not None

    def raise_if_faulty(self) -> None:
        """
        Raises:
            ValueError: there are faults; names the file, the first faults and the number of the others.
        """
        if self._collect() or not self.faults:
            return
        lines = [f"{fault.label}: {fault.message}" for fault in self.faults[:_MAX_LISTED]]
        if len(self.faults) > _MAX_LISTED:
            lines.append(f"and {len(self.faults) - _MAX_LISTED} more")
        raise ValueError("\n  ".join([f"{self.annotation_file} is malformed:", *lines, *self.hints]))

    def log(self, logger: logging.Logger) -> None:
        """Logs one warning with all skipped and unusual entries, if there are any."""
        if self._collect():
            return
        faults: dict[str, Tally] = {}
        for fault in self.faults:
            faults.setdefault(f"x {fault.reason}, left out", Tally()).add(fault.label, fault.message, 1)
        tallies = [*faults.items(), *self.dropped.items(), *self.noted.items()]
        if tallies or self.hints:
            parts = [f"{tally.count} {what} ({tally.listed})" for what, tally in tallies]
            logger.warning("%s: %s", self.annotation_file, "; ".join([*parts, *self.hints]))
