"""Depth order of an image's objects from the keys of their annotations: ``in_front``, ``depth``, ``unordered_with``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bcnet.data.coco_json import annotation_label, image_label, is_id, normal_id, short
from bcnet.data.findings import Findings
from bcnet.data.records import ImageRecord

# `ImageRecord.in_front`: pairs (i, j), j in front of i.
Pairs = list[tuple[int, int]]

_KEYS = frozenset(("depth", "in_front", "unordered_with"))


def annotated_order(record: ImageRecord, annotations: Sequence[dict], findings: Findings) -> Pairs | None:
    """The order by the annotations' ``in_front``, lists of ids, or else by their ``depth``; smaller is nearer.

    The ids of ``unordered_with`` give `ImageRecord.unordered_pairs`.
    """
    if all(_KEYS.isdisjoint(annotation) for annotation in annotations):
        return None
    undecided = _pairs_of_ids(record, annotations, findings, "unordered_with")
    record.unordered_pairs = tuple(sorted({(min(pair), max(pair)) for pair in undecided}))
    if any(annotation.get("in_front") is not None for annotation in annotations):
        return _listed_pairs(record, annotations, findings)
    return pairs_in_front(record, [annotation.get("depth") for annotation in annotations], findings, "a depth")


def _listed_pairs(record: ImageRecord, annotations: Sequence[dict], findings: Findings) -> Pairs:
    """The pairs of the annotations' ``in_front``; objects without one are `ImageRecord.unordered`."""
    record.unordered = tuple(
        place
        for place, annotation in enumerate(annotations)
        if annotation.get("in_front") is None and not record.instances[place].iscrowd
    )
    return _pairs_of_ids(record, annotations, findings, "in_front")


def _pairs_of_ids(record: ImageRecord, annotations: Sequence[dict], findings: Findings, key: str) -> Pairs:
    """The positions of each annotation and of those that its list of ids names."""
    places = {normal_id(annotation["id"]): place for place, annotation in enumerate(annotations)}
    pairs: Pairs = []
    for place, annotation in enumerate(annotations):
        ids = annotation.get(key)
        if ids is None:
            continue
        if not isinstance(ids, list) or not all(is_id(value) for value in ids):
            raise ValueError(f"{key} of {annotation_label(annotation)} must be a list of ids, got {short(ids)}")
        for value in dict.fromkeys(map(normal_id, ids)):
            if value not in places:
                what = f"ids of {key} that no annotation of the image has, dropped"
                findings.note(what, annotation_label(annotation), f"{key} has {value!r}")
            elif places[value] != place:
                pairs.append((place, places[value]))
    return pairs


def pairs_in_front(record: ImageRecord, depths: Sequence[Any], findings: Findings, what: str) -> Pairs | None:
    """`ImageRecord.in_front` from one depth per instance (smaller is nearer), crowds excluded.

    None if no object has a depth, or if only some have one, which is noted.
    """
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
    known = [i for i in objects if depths[i] is not None]
    if len(known) < len(objects):
        if known:
            unknown = f"images in which only some objects have {what}, depth order ignored"
            findings.note(unknown, image_label(record))
        return None
    return [(i, j) for i in known for j in known if depths[j] < depths[i]] if known else None
