"""Reader of InstaOrder (Lee and Park, "Instance-wise Occlusion and Depth Orders in Natural Scenes", CVPR 2022).

InstaOrder annotates pairwise occlusion order of instances of COCO 2017. Its file, ``InstaOrder_val2017.json``, has no
masks: it refers to COCO's by image and annotation ids, so both files are read.

==================  ===================================================================================================
key of an entry     meaning
==================  ===================================================================================================
``image_id``        COCO's image id
``instance_ids``    COCO's annotation ids of the compared instances; ``occlusion`` has positions in this list, from 0
``occlusion``       list of ``{"order": ...}``: "0<2", instance 0 occludes part of instance 2; or "0<2 & 2<0", each
                    occludes part of the other. Pairs that are not listed do not occlude each other
``depth``           not read: relative distance to the camera, also of objects that do not overlap
==================  ===================================================================================================

`ImageRecord.in_front` has one pair for each occlusion, and both pairs if it is mutual. Objects that the entry does not
list are in `ImageRecord.unordered`. The order of a COCO image without an entry is unknown. A listed id that the image
lacks is noted, and its pairs are dropped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bcnet.data.coco import read_annotations
from bcnet.data.coco_json import image_label, is_id, missing, normal_id, read_coco_json, short
from bcnet.data.findings import Findings
from bcnet.data.formats import SpecPart
from bcnet.data.order import Pairs
from bcnet.data.reader import AnnotationFormat
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json

_logger = logging.getLogger(__name__)

INSTAORDER_FILE = SpecPart("InstaOrder file", "path/to/instaorder.json", file=True, suffixes=(".json",))
_ORDER = re.compile(r"\s*(\d{1,6})\s*<\s*(\d{1,6})\s*(?:&\s*(\d{1,6})\s*<\s*(\d{1,6})\s*)?", re.ASCII)


class _Entry(NamedTuple):
    """Annotation ids of the compared instances, and pairs of them (occludee, occluder)."""

    instances: frozenset[int | str]
    pairs: list[tuple[int | str, int | str]]


def load_instaorder(
    instaorder_file: str, annotation_file: str, image_root: str, name: str = ""
) -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads COCO's instances with InstaOrder's occlusion order (see the module docstring).

    Args:
        instaorder_file: path of InstaOrder's json.
        annotation_file, image_root, name: as in `bcnet.data.coco.load_coco`.

    Returns:
        As `load_coco`, including images that InstaOrder does not list.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: one of the files is malformed; names the file, and the ids and values of the first faults.
    """
    entries = _read_entries(instaorder_file)

    def order(record: ImageRecord, annotations: Sequence[dict], findings: Findings) -> Pairs | None:
        return _occlusion_order(entries, record, list(annotations), findings)

    format = AnnotationFormat(order=order)
    content = read_coco_json(annotation_file)
    records, info = read_annotations(content, annotation_file, image_root, name, format=format)
    ordered = sum(record.in_front is not None for record in records)
    _logger.info(
        "%d of %d images have an occlusion order; %s lists %d images",
        *(ordered, len(records), instaorder_file, len(entries)),
    )
    return records, replace(info, annotated_occlusions=True)


def _read_entries(path: str) -> dict[int | str, _Entry]:
    content = read_json(path)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise ValueError(f"{path} is not an InstaOrder file: it has no list of annotations")
    findings = Findings(path)
    entries: dict[int | str, _Entry] = {}
    for position, annotation in enumerate(annotations):
        label = f"annotation at position {position}"
        try:
            fault = missing(annotation, ("image_id", "instance_ids", "occlusion"))
            if fault is not None:
                raise ValueError(f"{fault}: {short(annotation)}")
            image_id = annotation["image_id"]
            if not is_id(image_id):
                raise ValueError(f"image_id must be an integer or a string, got {short(image_id)}")
            if normal_id(image_id) in entries:
                raise ValueError(f"image {short(image_id)} has an annotation already")
            entries[normal_id(image_id)] = _read_entry(annotation)
        except ValueError as error:
            findings.fault(label, error)
    findings.raise_if_faulty()
    return entries


def _read_entry(annotation: dict) -> _Entry:
    ids = annotation["instance_ids"]
    if not isinstance(ids, list) or not all(is_id(value) for value in ids) or len(set(ids)) < len(ids):
        raise ValueError(f"instance_ids must be a list of ids, each once, got {short(ids)}")
    occlusions = annotation["occlusion"]
    if not isinstance(occlusions, list) or not all(isinstance(entry, dict) for entry in occlusions):
        raise ValueError(f"occlusion must be a list of objects with an order, got {short(occlusions)}")
    ids = [normal_id(value) for value in ids]
    orders = [pair for entry in occlusions for pair in _read_order(entry.get("order"), len(ids))]
    pairs = dict.fromkeys((ids[occludee], ids[occluder]) for occluder, occludee in orders)
    return _Entry(frozenset(ids), list(pairs))


def _read_order(order: object, count: int) -> list[tuple[int, int]]:
    """Parses "0<2" or "0<2 & 2<0" into pairs (occluder, occludee) of positions in ``instance_ids``.

    Raises:
        ValueError: another form, or a position that is not below `count`.
    """
    match = _ORDER.fullmatch(order) if isinstance(order, str) else None
    numbers = [int(group) for group in match.groups() if group is not None] if match else []
    mutual = len(numbers) == 4
    if not numbers or numbers[0] == numbers[1] or (mutual and numbers[2:] != numbers[1::-1]):
        raise ValueError(f"order must be a string like '0<2' or '0<2 & 2<0', got {short(order)}")
    if max(numbers) >= count:
        raise ValueError(f"order {short(order)} has a position beyond the {count} instance_ids")
    first, second = numbers[:2]
    return [(first, second), (second, first)] if mutual else [(first, second)]


def _occlusion_order(
    entries: Mapping[int | str, _Entry], record: ImageRecord, annotations: list[dict], findings: Findings
) -> Pairs | None:
    entry = entries.get(record.image_id)
    if entry is None:
        return None
    positions = {normal_id(annotation["id"]): position for position, annotation in enumerate(annotations)}
    lacking = entry.instances - positions.keys()
    if lacking:
        label = f"{image_label(record)}: {short(sorted(lacking, key=str))}"
        findings.note("images without some instances that InstaOrder lists", label)
    record.unordered = tuple(
        position
        for annotation_id, position in positions.items()
        if annotation_id not in entry.instances and not record.instances[position].iscrowd
    )
    return [(positions[i], positions[j]) for i, j in entry.pairs if i in positions and j in positions]
