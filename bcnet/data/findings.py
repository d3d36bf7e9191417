"""Findings: malformed and unusual entries of an annotation file, collected while reading, reported once.

A reader applies one set of rules; the caller decides about faults. Training and evaluation reject
the file (`Findings.raise_if_faulty`), the occluder conversion leaves the entry out and counts it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import NamedTuple

_LISTED = 5  # entries that a message names


class AnnotationError(ValueError):
    """An entry that cannot be used: the message has the actual value, `reason` the kind of fault, for counting."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Fault(NamedTuple):
    """An entry that cannot be used."""

    label: str  # such as "annotation 12"
    reason: str  # the same words for all faults of a kind
    message: str  # with the actual value
    of_annotation: bool  # or of an image, or of the file as a whole


@dataclass
class Tally:
    """How many entries are odd in one way, the first of them, and what the first one's value is."""

    count: int = 0
    labels: list[str] = field(default_factory=list)
    message: str = ""

    def add(self, label: str, message: str, count: int) -> None:
        self.count += count
        if len(self.labels) <= _LISTED:
            self.labels.append(label)
            self.message = self.message or message

    @property
    def listed(self) -> str:
        more = ", ..." if len(self.labels) > _LISTED else ""
        return ", ".join(self.labels[:_LISTED]) + more


class Findings:
    """What is wrong or odd in one annotation file.

    Attributes:
        annotation_file: its path.
        faults: entries that cannot be used.
        dropped: entries that every caller leaves out, by what they are.
        noted: odd entries that have a meaning, by what they are.
        hints: what the faults look like as a whole, such as a wrong unit of the coordinates.
    """

    def __init__(self, annotation_file: str) -> None:
        self.annotation_file = annotation_file
        self.faults: list[Fault] = []
        self.dropped: dict[str, Tally] = {}
        self.noted: dict[str, Tally] = {}
        self.hints: list[str] = []

    def fault(self, label: str, error: ValueError, *, of_annotation: bool = True) -> None:
        """Adds an entry that cannot be used; errors without a `reason` are counted by their message."""
        self.faults.append(Fault(label, getattr(error, "reason", str(error)), str(error), of_annotation))

    def drop(self, what: str, label: str, message: str = "") -> None:
        """Adds an entry that is left out; `what` is in the plural, as a count precedes it."""
        self.dropped.setdefault(what, Tally()).add(label, message, 1)

    def note(self, what: str, label: str, message: str = "", count: int = 1) -> None:
        """Adds an odd entry that is kept; `what` is in the plural, as a count precedes it."""
        self.noted.setdefault(what, Tally()).add(label, message, count)

    def raise_if_faulty(self) -> None:
        """
        Raises:
            ValueError: there are faults; names the file, the first ones and the number of the others.
        """
        if not self.faults:
            return
        lines = [f"{fault.label}: {fault.message}" for fault in self.faults[:_LISTED]]
        if len(self.faults) > _LISTED:
            lines.append(f"and {len(self.faults) - _LISTED} more")
        raise ValueError("\n  ".join([f"{self.annotation_file} is malformed:", *lines, *self.hints]))

    def log(self, logger: logging.Logger) -> None:
        """One warning with what was left out or is odd, if there is anything."""
        faults: dict[str, Tally] = {}
        for fault in self.faults:
            faults.setdefault(f"x {fault.reason}, left out", Tally()).add(fault.label, fault.message, 1)
        tallies = [*faults.items(), *self.dropped.items(), *self.noted.items()]
        if tallies or self.hints:
            parts = [f"{tally.count} {what} ({tally.listed})" for what, tally in tallies]
            logger.warning("%s: %s", self.annotation_file, "; ".join([*parts, *self.hints]))
