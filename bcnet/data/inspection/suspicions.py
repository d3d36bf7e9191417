"""Suspicious entries of a data set: the reader's findings, image files, repeated annotations and images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bcnet.data.coco_json import annotation_label, short
from bcnet.data.duplicates import content_groups
from bcnet.data.findings import Findings, Tally
from bcnet.data.images import image_size
from bcnet.data.records import ImageRecord
from bcnet.data.source_masks import has_mask, visible_rle

ERROR, DROPPED, NOTED = "error", "left out", "noted"
EXAMPLES = 5  # that are kept of each kind


@dataclass
class Example:
    """One suspicious entry.

    Attributes:
        label: names it, such as "annotation 12".
        record: its image, if it was read.
        position: of the annotation in the record's instances; None for an image.
    """

    label: str
    record: ImageRecord | None = None
    position: int | None = None


@dataclass
class Suspicion:
    """Entries that are suspicious in one way.

    Attributes:
        severity: "error", training rejects the data set; "left out", skipped by every reader; "noted", used.
        what: description, a plural noun phrase.
        count: number of entries; 0 of a remark on all of them, such as a likely cause.
        message: of the first one, with its value; empty if there is nothing to add.
        examples: the first entries.
    """

    severity: str
    what: str
    count: int
    message: str = ""
    examples: list[Example] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.count} {self.what}" if self.count else self.what


def suspicions(records: Sequence[ImageRecord], findings: Sequence[Findings]) -> list[Suspicion]:
    """All suspicious entries of a data set, errors first.

    Args:
        records: the images; the headers of their files are read, and files of equal size as a whole.
        findings: of the reader (`bcnet.data.findings.collected_findings`).
    """
    found = [*_of_reader(records, findings), *_of_files(records), *_repeated_annotations(records)]
    return sorted(found, key=lambda suspicion: (ERROR, DROPPED, NOTED).index(suspicion.severity))


def _of_reader(records: Sequence[ImageRecord], findings: Sequence[Findings]) -> list[Suspicion]:
    places = _places_by_label(records)
    found: list[Suspicion] = []

    def add(severity: str, what: str, tally: Tally) -> None:
        message = tally.message if severity != ERROR else f"{tally.labels[0]}: {tally.message}"
        labels = tally.labels[:EXAMPLES]
        found.append(Suspicion(severity, what, tally.count, message, [places.get(x) or Example(x) for x in labels]))

    for finding in findings:
        faults: dict[str, Tally] = defaultdict(Tally)
        for fault in finding.faults:
            faults[fault.reason].add(fault.label, fault.message, 1)
        for severity, tallies in ((ERROR, faults), (DROPPED, finding.dropped), (NOTED, finding.noted)):
            for what, tally in tallies.items():
                add(severity, what, tally)
        found += [Suspicion(NOTED, hint, 0) for hint in finding.hints]
    return found


def _places_by_label(records: Sequence[ImageRecord]) -> dict[str, Example]:
    """Annotations and images by the labels that findings have."""
    places = {}
    for record in records:
        for label in (f"image {short(record.image_id)}", f"image {short(record.image_id)}, {short(record.file_name)}"):
            places[label] = Example(label, record)
        for position, instance in enumerate(record.instances):
            label = annotation_label({"id": instance.annotation_id})
            places[label] = Example(label, record, position)
    return places


def _of_files(records: Sequence[ImageRecord]) -> list[Suspicion]:
    unreadable, sizes = Suspicion(ERROR, "unreadable images", 0), Suspicion(ERROR, "images of another size", 0)
    twice = Suspicion(NOTED, "images whose file has the same content as another one's", 0)
    for record in records:
        label = f"image {short(record.image_id)}"
        try:
            size = image_size(record.file_name)
        except ValueError as error:
            _add(unreadable, Example(label), str(error))
            continue
        if size != (record.height, record.width):
            message = (
                f"{record.file_name} is {size[1]} x {size[0]}, the annotations say {record.width} x {record.height}"
            )
            _add(sizes, Example(label, record), message)
    for group in content_groups([record.file_name for record in records]):
        for position in group[1:]:
            record, first = records[position], records[group[0]]
            names = f"{os.path.basename(record.file_name)} and {os.path.basename(first.file_name)}"
            _add(twice, Example(f"image {short(record.image_id)}", record), names)
    return [suspicion for suspicion in (unreadable, sizes, twice) if suspicion.count]


def _add(suspicion: Suspicion, example: Example, message: str) -> None:
    suspicion.count += 1
    suspicion.message = suspicion.message or message
    if len(suspicion.examples) < EXAMPLES:
        suspicion.examples.append(example)


def _repeated_annotations(records: Sequence[ImageRecord]) -> list[Suspicion]:
    """Objects of one class with exactly the mask or box of an earlier one of the image."""
    repeated = Suspicion(NOTED, "objects with the class and mask of another object of the image (annotated twice?)", 0)
    for record in records:
        seen: dict[tuple, int] = {}
        for position, instance in enumerate(record.instances):
            if instance.iscrowd or (instance.amodal and not instance.segmentation):  # fully hidden ones look alike
                continue
            mask = visible_rle(record, instance)["counts"] if has_mask(instance) else tuple(instance.bbox)
            key = (instance.category, mask)
            if key in seen:
                first = annotation_label({"id": record.instances[seen[key]].annotation_id})
                _add(
                    repeated,
                    Example(annotation_label({"id": instance.annotation_id}), record, position),
                    f"like {first}",
                )
            seen.setdefault(key, position)
    return [repeated] if repeated.count else []
