"""Conversion of data sets between formats: any registered reader, any registered writer, with a split by images."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.duplicates import content_groups
from bcnet.data.exporters import FILE_FORMATS, WRITER_REGISTRY
from bcnet.data.exporters.output import check_output, replaced_folder
from bcnet.data.findings import collected_findings
from bcnet.data.formats import READER_REGISTRY
from bcnet.data.reader import BRUSH_MASKS_HINT
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.data.source_masks import has_mask, overlapping_pairs, unknown_matrix, visible_rle
from bcnet.ops.rle import rle_difference, rle_union

_logger = logging.getLogger(__name__)


@dataclass
class Conversion:
    """What a conversion wrote.

    Attributes:
        outputs: by the split's name ("" without a split) the file or folder.
        images, instances: numbers of them, by the split's name.
        lost: what the format cannot hold, counted by what it is.
        missing: images that do not exist.
        image_root: folder that the file names of a COCO json start at.
    """

    outputs: dict[str, str] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    instances: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    image_root: str = ""


def convert_dataset(
    source_format: str,
    paths: Sequence[str],
    output: str,
    *,
    target_format: str = "coco",
    train_share: float | None = None,
    seed: int = 0,
    crowds_as_objects: bool = False,
    amodal_shapes: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Reads a data set in one format and writes it in another.

    Args:
        source_format: one of `READER_REGISTRY`.
        paths: the parts of its spec.
        output: file (COCO, YTVIS) or folder to write; with a split ``x_train.json`` and ``x_val.json``, or the folders
            ``train`` and ``val`` in it.
        target_format: one of `WRITER_REGISTRY`.
        train_share: share of the images that goes to "train", the others to "val"; above 0 and below 1. Identical
            image files stay together, and the frames of a video. None: no split.
        seed: of the split.
        crowds_as_objects: crowds with a mask are objects (CVAT's COCO export marks every brush mask as a crowd).
        amodal_shapes: shapes are whole objects, drawn also where others lie on them: they become amodal masks, and the
            visible mask is what objects in front leave of them.
        overwrite: replace an existing file, or in a folder the files that an earlier conversion wrote; others stay.

    Raises:
        FileExistsError: the output exists and `overwrite` is not set; or it is a folder of other files.
        FileNotFoundError: a path does not exist.
        ValueError: an unknown format, another number of paths than it has, a share out of range, malformed content.
    """
    reader, write = READER_REGISTRY.get(source_format), WRITER_REGISTRY.get(target_format)
    if not reader.accepts(len(paths)):
        raise ValueError(f"the format {source_format!r} is read from {reader.form!r}, got the paths {list(paths)}")
    if missing := reader.missing(paths):
        raise FileNotFoundError(f"{' and '.join(missing)} not found")
    if train_share is not None and not 0 < train_share < 1:
        raise ValueError(f"the share of the training images must be above 0 and below 1, got {train_share}")
    splits = ("",) if train_share is None else ("train", "val")
    places = {split: _place(output, split, target_format) for split in splits}
    is_folder = target_format not in FILE_FORMATS
    check_output([output] if is_folder else [place for place, _ in places.values()], overwrite)
    with collected_findings() if crowds_as_objects else contextlib.nullcontext([]) as findings:
        records, info = reader.read(*paths, name="")
    for finding in findings:  # without the hint to do what is done
        finding.hints = [hint for hint in finding.hints if hint != BRUSH_MASKS_HINT]
        finding.raise_if_faulty()
        finding.log(_logger)
    info = replace(info, image_root=_image_root(records, info))
    if crowds_as_objects:
        records = [with_crowds_as_objects(record) for record in records]
    result = Conversion(image_root=info.image_root)
    if amodal_shapes:
        records = [with_amodal_shapes(record) for record in records]
        boxes = sum(not has_mask(i) and not i.iscrowd for record in records for i in record.instances)
        result.lost |= {"amodal masks of objects without a mask": boxes} if boxes else {}
    parts = {"": records} if train_share is None else split_records(records, train_share, seed)
    result.missing = [record.file_name for record in records if not os.path.isfile(record.file_name)]
    images = [record.file_name for record in records]
    with replaced_folder(output, images) if is_folder else contextlib.nullcontext():
        for split, part in parts.items():
            place, options = places[split]
            for what, count in write(part, info, place, **options).items():
                result.lost[what] = result.lost.get(what, 0) + count
            result.outputs[split] = place
            result.images[split] = len(part)
            result.instances[split] = sum(len(record.instances) for record in part)
    return result


def _place(output: str, split: str, target_format: str) -> tuple[str, dict]:
    if target_format == "yolo":
        return output, {"split": split or "train"}
    stem, suffix = os.path.splitext(output)
    if not split:
        return output, {}
    return (f"{stem}_{split}{suffix}" if target_format in FILE_FORMATS else os.path.join(output, split)), {}


def _image_root(records: Sequence[ImageRecord], info: DatasetInfo) -> str:
    """The reader's image folder, or the one that holds all images if some are elsewhere."""
    root = info.image_root or "."
    if all(not os.path.relpath(record.file_name, root).startswith("..") for record in records):
        return root
    return os.path.commonpath([os.path.dirname(os.path.abspath(record.file_name)) for record in records])


def split_records(records: Sequence[ImageRecord], train_share: float, seed: int) -> dict[str, list[ImageRecord]]:
    """The records as "train" and "val", drawn by image, or by video; identical image files are on one side.

    Raises:
        ValueError: there are too few different images for two sides.
    """
    groups = _with_whole_videos(content_groups([record.file_name for record in records]), records)
    np.random.default_rng(seed).shuffle(groups)
    wanted = min(max(round(train_share * len(records)), 1), len(records) - 1)
    train: set[int] = set()
    for number, group in enumerate(groups):
        if train and (len(train) + len(group) > wanted or number == len(groups) - 1):
            continue
        train.update(group)
    if not 0 < len(train) < len(records):
        raise ValueError(f"{len(records)} images, {len(groups)} of them different, are too few for a split")
    sides: dict[str, list[ImageRecord]] = {"train": [], "val": []}
    for position, record in enumerate(records):
        sides["train" if position in train else "val"].append(record)
    return sides


def _with_whole_videos(groups: list[list[int]], records: Sequence[ImageRecord]) -> list[list[int]]:
    """Groups of positions, joined where they have frames of one video; those of videos come last."""
    others: list[list[int]] = []
    of_videos: list[tuple[set[int | str | None], list[int]]] = []
    for positions in groups:
        videos = {records[position].video_id for position in positions} - {None}
        if not videos:
            others.append(positions)
            continue
        for known in [known for known in of_videos if known[0] & videos]:
            of_videos.remove(known)
            videos, positions = known[0] | videos, known[1] + positions
        of_videos.append((videos, positions))
    return [*others, *(positions for _, positions in of_videos)]


def with_crowds_as_objects(record: ImageRecord) -> ImageRecord:
    """A record whose crowds with a mask are objects, of unknown order where the others have one."""
    changed = [i for i, instance in enumerate(record.instances) if instance.iscrowd and instance.segmentation]
    instances = [
        replace(instance, iscrowd=False) if i in changed else instance for i, instance in enumerate(record.instances)
    ]
    unordered = record.unordered if record.in_front is None else (*record.unordered, *changed)
    return replace(record, instances=instances, unordered=unordered)


def with_amodal_shapes(record: ImageRecord) -> ImageRecord:
    """A record whose masks were drawn whole: they become amodal, and visible is what objects in front leave of them.

    An object without a mask, a box alone, stays as it is.

    Raises:
        ValueError: two masks overlap, and nothing says which of them lies in front.
    """
    objects = [i for i, instance in enumerate(record.instances) if not instance.iscrowd and instance.segmentation]
    known = ~unknown_matrix(record, range(len(record.instances)))
    for i, j in overlapping_pairs(record):
        if i in objects and j in objects and not known[i, j]:
            first, second = (record.instances[k].annotation_id for k in (i, j))
            raise ValueError(
                f"{record.annotation_file}: annotations {first!r} and {second!r} of image {record.image_id!r} "
                f"({record.file_name}) overlap, and their depth order is not known, so nothing says which part of a "
                "whole shape is visible"
            )
    shapes = {i: visible_rle(record, record.instances[i]) for i in objects}
    fronts: dict[int, list[int]] = {i: [] for i in objects}
    for behind, front in record.in_front or []:
        if behind in shapes and front in shapes:
            fronts[behind].append(front)
    instances = list(record.instances)
    for i in objects:
        instance, visible = record.instances[i], shapes[i]
        if fronts[i]:
            visible = rle_difference(shapes[i], rle_union([shapes[j] for j in fronts[i]]))
        instances[i] = replace(
            instance,
            segmentation=instance.segmentation if visible == shapes[i] else dict(visible),
            bbox=coco_mask.toBbox(visible).tolist(),
            area=None,
            amodal=instance.segmentation,
            amodal_bbox=instance.bbox,
        )
    return replace(record, instances=instances)
