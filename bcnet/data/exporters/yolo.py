"""Writer of a YOLO segmentation data set: ``data.yaml``, images and label files."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence

import yaml

from bcnet.data.exporters.losses import count_losses
from bcnet.data.exporters.masks import single_polygon
from bcnet.data.exporters.names import output_stems
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import write_text


def write_yolo(
    records: Sequence[ImageRecord], info: DatasetInfo, output: str, *, split: str = "train"
) -> dict[str, int]:
    """Writes ``images/SPLIT``, ``labels/SPLIT`` and ``data.yaml``; splits that the yaml has already stay in it.

    Images are hard links where the file system allows, else copies. Coordinates have all their digits. An object of
    several parts, or of an RLE, becomes one polygon that covers the same pixels, with bridges that enclose nothing; an
    object without a mask is a line with its box.

    Returns:
        What the format cannot hold, counted.

    Raises:
        OSError: an image does not exist or cannot be copied.
        ValueError: the output has a ``data.yaml`` of other classes.
    """
    lost: Counter[str] = Counter()
    for record, stem in zip(records, output_stems(records, info.image_root), strict=True):
        suffix = os.path.splitext(record.file_name)[1]
        _link(record.file_name, os.path.join(output, "images", split, stem + suffix))
        lines = "".join(line + "\n" for line in _lines(record, lost))
        path = os.path.join(output, "labels", split, f"{stem}.txt")
        write_text(lines, path)
    _write_yaml(os.path.join(output, "data.yaml"), info, split)
    return {what: count for what, count in lost.items() if count}


def _lines(record: ImageRecord, lost: Counter[str]) -> list[str]:
    count_losses(record, lost)
    lines = []
    for instance in record.instances:
        if instance.iscrowd:
            lost["crowds, left out"] += 1
            continue
        if instance.segmentation:
            polygon = single_polygon(instance.segmentation, record.height, record.width)
            if not polygon:
                lost["masks without pixels, left out"] += 1
                continue
            sides = [record.width, record.height] * (len(polygon) // 2)
            values = [value / side for value, side in zip(polygon, sides, strict=True)]
        elif instance.amodal:
            lost["fully hidden objects, left out"] += 1
            continue
        else:
            x, y, width, height = instance.bbox
            values = [(x + width / 2) / record.width, (y + height / 2) / record.height]
            values += [width / record.width, height / record.height]
        lines.append(" ".join([str(instance.category), *(repr(float(value)) for value in values)]))
    return lines


def _link(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.exists(target):
        os.remove(target)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _write_yaml(path: str, info: DatasetInfo, split: str) -> None:
    names = dict(enumerate(info.class_names))
    content = {}
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
        if content.get("names") != names:
            raise ValueError(f"{path} has other classes, {content.get('names')}, than {names}")
    splits = {key: value for key, value in content.items() if key in ("train", "val", "test")}
    written = {**splits, split: f"images/{split}", "names": names}
    write_text(yaml.safe_dump(written, sort_keys=False, allow_unicode=True), path)
