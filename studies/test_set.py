"""Truth of a test set of the study of heads, instance by instance, and the splits that are reported apart.

Letters: G instances of an image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pycocotools import mask as coco_mask

from bcnet.data import ImageRecord, load_dataset
from bcnet.data.source_masks import FRONT, NEIGHBOURS, amodal_rle, source_masks, visible_rle
from bcnet.evaluation.occlusion import OCCLUSION_LEVELS, in_level
from bcnet.evaluation.olac import OLAC_LEVELS, read_olac_labels
from bcnet.occlusion.rule import MIN_PIXELS, crop_rle
from bcnet.occlusion.shares import hidden_share
from bcnet.ops.rle import RLE, rle_intersection, rle_union
from bcnet.prediction.ground_truth_boxes import ground_truth_boxes
from bcnet.structures import Detections

CROWDED = 0.3  # neighbours' share of the box above which an instance is among many


@dataclass(frozen=True)
class ImageTruth:
    """The truth of one image with G instances, crowds excluded.

    Attributes:
        record: the image.
        given: detections in the annotated boxes, in image pixels, without maps.
        visible: visible masks.
        amodal: amodal masks; None where the data set has none.
        occluders: what lies in front inside the box, where the order is known; else all neighbours (published rule).
        pairs: (i, j): j hides a part of i, and i none of j; their amodal masks have more than `MIN_PIXELS` in common.
            Empty without order or amodal masks.
    """

    record: ImageRecord
    given: Detections
    visible: list[RLE]
    amodal: list[RLE] | None
    occluders: list[RLE | None]
    pairs: list[tuple[int, int]]


def read_test_set(spec: str) -> list[ImageTruth]:
    """The images of a data set that have an object, in the order of their ids.

    Raises:
        FileNotFoundError, KeyError, ValueError: from `load_dataset`; an annotation has no mask; no image has an object.
    """
    truths = []
    for record in load_dataset(spec)[0]:
        positions = [i for i, instance in enumerate(record.instances) if not instance.iscrowd]
        if not positions:
            continue
        boxes, classes = ground_truth_boxes(record)
        given = Detections((record.height, record.width), boxes, torch.ones(len(boxes)), classes)
        instances = [record.instances[i] for i in positions]
        amodal = [amodal_rle(record, i) for i in instances] if all(i.amodal for i in instances) else None
        target = NEIGHBOURS if record.in_front is None else FRONT
        occluders = source_masks(record, layers=(target,)).layers[target]
        visible = [visible_rle(record, instance) for instance in instances]
        truths.append(ImageTruth(record, given, visible, amodal, occluders, _pairs(record, positions, amodal)))
    if not truths:
        raise ValueError(f"test set {spec!r} has no image with an object")
    return truths


def _pairs(record: ImageRecord, positions: Sequence[int], amodal: Sequence[RLE] | None) -> list[tuple[int, int]]:
    if amodal is None or record.in_front is None:
        return []
    index = {position: i for i, position in enumerate(positions)}
    known = {(index[i], index[j]) for i, j in record.in_front if i in index and j in index}
    return sorted(
        (i, j)
        for i, j in known
        if (j, i) not in known and coco_mask.area(rle_intersection(amodal[i], amodal[j])) > MIN_PIXELS
    )


def describe_test_set(truths: Sequence[ImageTruth], olac: str = "") -> dict:
    """What a report splits by, in columns, ready for JSON.

    Args:
        truths: of `read_test_set`.
        olac: file of COCO-OLAC's levels; empty without.

    Returns:
        dict: of all instances in order ``image`` (index), ``annotation`` (id), ``hidden`` (share of the amodal mask,
        None where that is not known), ``neighbours`` (share of the box that other instances' visible masks cover) and
        ``same_class`` (of these pixels, the share of neighbours of the same class); of all pairs ``pair_image``,
        ``pair_same_class`` and ``pair_larger`` (whether the visible mask of the one in front is the larger: a rule that
        needs no model); of all images ``file_name`` and ``level`` (COCO-OLAC's, None without a label).
    """
    labels = read_olac_labels(olac) if olac else {}
    of_instances = ("image", "annotation", "hidden", "neighbours", "same_class")
    columns: dict[str, list] = {key: [] for key in (*of_instances, "pair_image", "pair_same_class", "pair_larger")}
    names = [os.path.basename(truth.record.file_name) for truth in truths]
    for index, truth in enumerate(truths):
        instances = [instance for instance in truth.record.instances if not instance.iscrowd]
        columns["image"] += [index] * len(instances)
        columns["annotation"] += [instance.annotation_id for instance in instances]
        columns["hidden"] += (
            [None] * len(instances) if truth.amodal is None else list(map(hidden_share, truth.amodal, truth.visible))
        )
        for i, instance in enumerate(instances):
            crop = crop_rle(instance.bbox, truth.given.image_size)
            same = [instance.category == other.category for other in instances]
            others = _pixels(crop, [m for j, m in enumerate(truth.visible) if j != i])
            alike = _pixels(crop, [m for j, m in enumerate(truth.visible) if j != i and same[j]])
            columns["neighbours"].append(others / max(int(coco_mask.area(crop)), 1))
            columns["same_class"].append(alike / others if others else 0.0)
        columns["pair_image"] += [index] * len(truth.pairs)
        columns["pair_same_class"] += [instances[i].category == instances[j].category for i, j in truth.pairs]
        areas = [int(coco_mask.area(mask)) for mask in truth.visible]
        columns["pair_larger"] += [areas[j] > areas[i] for i, j in truth.pairs]
    return {
        **columns,
        "file_name": names,
        "level": [labels.get(os.path.splitext(name)[0]) for name in names],
    }


def _pixels(crop: RLE, masks: Sequence[RLE]) -> int:
    return int(coco_mask.area(rle_intersection(crop, rle_union(masks)))) if masks else 0


def instance_splits(description: Mapping) -> dict[str, np.ndarray]:
    """The instances of each split, bool [instances] by the split's name; splits without an instance are left out."""
    image = np.array(description["image"], dtype=int)
    hidden = np.array([np.nan if share is None else share for share in description["hidden"]], dtype=float)
    neighbours = np.array(description["neighbours"], dtype=float)
    alike = np.array(description["same_class"], dtype=float) >= 0.5
    levels = np.array([level or "" for level in description["level"]])[image]
    splits = {"all": np.ones(len(image), dtype=bool)}
    for name, level in OCCLUSION_LEVELS.items():
        low, high = (f"{100 * bound:g}" for bound in level)
        splits[f"hidden: {name}, {low}-{high} %"] = np.array([in_level(share, level) for share in hidden], dtype=bool)
    share = f"{100 * CROWDED:g} %"
    splits["no neighbour in the box"] = neighbours == 0
    splits[f"neighbours in up to {share} of the box"] = (neighbours > 0) & (neighbours <= CROWDED)
    splits[f"neighbours in more than {share} of the box"] = neighbours > CROWDED
    splits["neighbours mostly of the same class"] = (neighbours > 0) & alike
    splits["neighbours mostly of other classes"] = (neighbours > 0) & ~alike
    for level in OLAC_LEVELS:
        splits[f"COCO-OLAC: {level}"] = levels == level
    return {name: members for name, members in splits.items() if members.any()}


def pair_splits(description: Mapping) -> dict[str, np.ndarray]:
    """The pairs of each split, bool [pairs] by the split's name; empty without pairs."""
    same = np.array(description["pair_same_class"], dtype=bool)
    splits = {"all": np.ones(len(same), dtype=bool), "pairs of one class": same, "pairs of two classes": ~same}
    return {name: members for name, members in splits.items() if members.any()}
