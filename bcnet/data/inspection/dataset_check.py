"""Check of data sets: reads them without giving up at faults, and gathers everything that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from bcnet.data.catalog import load_dataset
from bcnet.data.findings import collected_findings
from bcnet.data.inspection.advice import config_lines, remarks
from bcnet.data.inspection.counts import DatasetCounts, count_dataset
from bcnet.data.inspection.shared_images import SharedImage, shared_images
from bcnet.data.inspection.suspicions import ERROR, Suspicion, suspicions
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.words import counted

_LISTED = 12  # classes, suspicions and shared images in the text


@dataclass
class CheckedDataset:
    """A data set with its counts and suspicious entries."""

    name: str
    records: list[ImageRecord]
    info: DatasetInfo
    counts: DatasetCounts
    suspicions: list[Suspicion]

    @property
    def errors(self) -> int:
        return sum(suspicion.count for suspicion in self.suspicions if suspicion.severity == ERROR)


@dataclass
class DatasetCheck:
    """Checked data sets, the images that they share, and config keys for a training on the first.

    Attributes:
        datasets: in the order in which they were named.
        shared: by the names of two data sets the images of the first that the second has too.
        config: config keys with values, one a line.
        remarks: on the first data set, and on classes that not all data sets have.
    """

    datasets: list[CheckedDataset]
    shared: dict[tuple[str, str], list[SharedImage]] = field(default_factory=dict)
    config: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        """Whether training accepts all data sets and no two share an image."""
        return not any(dataset.errors for dataset in self.datasets) and not any(self.shared.values())

    def text(self) -> str:
        """One page for a terminal."""
        lines = [line for dataset in self.datasets for line in _dataset_lines(dataset)]
        for (first, second), images in self.shared.items():
            identical = sum(image.identical for image in images)
            lines.append(
                f"images of {first} that are in {second} too: {identical}, and {len(images) - identical} alike"
            )
            lines += [f"  {image.first.file_name} = {image.second.file_name}" for image in images[:_LISTED]]
        lines += ["", *(f"note: {remark}" for remark in self.remarks)]
        return "\n".join([*lines, "to start with:", *(f"  {line}" for line in self.config)])


def check_datasets(names: Sequence[str]) -> DatasetCheck:
    """Checks data sets, and each two of them for images that they share.

    Args:
        names: names or specs; the first is taken for the training set, the second for the test set.

    Raises:
        KeyError, FileNotFoundError, ValueError: as `load_dataset`, but for faults of single entries.
    """
    check = DatasetCheck([_checked(name) for name in names])
    for first, second in combinations(check.datasets, 2):
        check.shared[first.name, second.name] = shared_images(first.records, second.records)
    train = check.datasets[0]
    test = check.datasets[1].name if len(check.datasets) > 1 else None
    if train.counts.images:
        check.config = config_lines(train.counts, train.name, test)
    check.remarks = remarks(train.counts, train.info.class_names)
    if test is None:
        check.remarks.append(
            "no test set was named, so none is evaluated on; bcnet data convert --split 0.8 makes two sets of one"
        )
    for first, second in combinations(check.datasets, 2):
        check.remarks += _class_differences(first, second)
    return check


def _checked(name: str) -> CheckedDataset:
    with collected_findings() as findings:
        records, info = load_dataset(name)
    counts, found = count_dataset(records), suspicions(records, findings)
    if not counts.objects:
        found.insert(0, Suspicion(ERROR, "data set without an object, which training rejects", 1))
    return CheckedDataset(name, records, info, counts, found)


def _class_differences(first: CheckedDataset, second: CheckedDataset) -> list[str]:
    """Which classes, by name, one of two data sets has and the other lacks."""
    lines = []
    for one, other in ((first, second), (second, first)):
        missing = [name for name in one.info.class_names if name not in other.info.class_names]
        if missing:
            listed = ", ".join(missing[:_LISTED]) + (", ..." if missing[_LISTED:] else "")
            lines.append(f"{counted(len(missing), 'class', 'classes')} of {one.name}, not in {other.name}: {listed}")
    return lines


def count_lines(dataset: CheckedDataset) -> list[tuple[str, str]]:
    """The counts in words: what, and how many."""
    counts = dataset.counts
    objects = max(counts.objects, 1)
    lines = [
        ("images", f"{counts.images}, {counts.empty} without objects"),
        ("objects", f"{counts.objects}, and {counted(counts.crowds, 'crowd')}; {_spread(counts.per_image)} per image"),
        ("image sides", f"{_spread(counts.widths)} x {_spread(counts.heights)}"),
        (
            "object areas",
            f"{counts.small} small, {counts.medium} medium, {counts.large} large (32 x 32, 96 x 96 pixels)",
        ),
        ("masks", f"{counts.objects - counts.without_mask} visible, {counts.with_amodal} amodal"),
        ("neighbours", f"{counts.neighbours / objects:.2f} per object, by boxes of an IoU above 0.05"),
        ("with an occluder", f"{counts.with_occluder} ({counts.with_occluder / objects:.1%})"),
        ("known to be hidden in part", f"{counts.hidden} of {counts.known_hidden} of which it is known"),
        ("pairs with known order", f"{counts.ordered_pairs} of {counts.pairs} pairs of neighbours"),
    ]
    return lines


def class_counts(dataset: CheckedDataset) -> list[tuple[str, int]]:
    """The classes with their numbers of objects, the most frequent first."""
    named = [(name, dataset.counts.per_class[index]) for index, name in enumerate(dataset.info.class_names)]
    return sorted(named, key=lambda entry: -entry[1])


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "0"
    low, middle, high = min(values), float(np.median(values)), max(values)
    return f"{middle:g}" if low == high else f"{middle:g} ({low:g} to {high:g})"


def _dataset_lines(dataset: CheckedDataset) -> list[str]:
    lines = [dataset.name, *(f"  {what:28}{value}" for what, value in count_lines(dataset))]
    classes = class_counts(dataset)
    listed = ", ".join(f"{name} {count}" for name, count in classes[:_LISTED])
    lines.append(f"  {'classes':28}{len(classes)}: {listed}{', ...' if classes[_LISTED:] else ''}")
    for suspicion in dataset.suspicions[:_LISTED]:
        labels = ", ".join(example.label for example in suspicion.examples)
        text = f"{suspicion.title} ({labels})" if labels else suspicion.title
        lines.append(f"  {suspicion.severity}: {text}{f': {suspicion.message}' if suspicion.message else ''}")
    if len(dataset.suspicions) > _LISTED:
        lines.append(f"  and {len(dataset.suspicions) - _LISTED} more kinds")
    return lines
