"""Recall of occluded objects and of separated ones (cut into pieces), as on Occluded and Separated COCO.

The measure is that of Occluded COCO and Separated COCO (Zhan et al., "A Tri-Layer Plugin to Improve Occluded
Detection", BMVC 2022). Their two lists of COCO val2017 objects can be given; without them the annotations
themselves are split.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.classes import class_positions
from bcnet.evaluation.ground_truth import GroundTruth, visible_mask
from bcnet.evaluation.occlusion import OCCLUSION_LEVELS, hidden_shares, occluders_of
from bcnet.occlusion.rule import MIN_PIXELS
from bcnet.ops.rle import RLE

logger = logging.getLogger(__name__)

SCORE_THRESHOLD, IOU_THRESHOLD = 0.3, 0.75  # of the published measure


def split_recall(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    lists: Mapping[str, GroundTruth] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
) -> dict:
    """The share of all, of the occluded and of the separated instances that are detected.

    An instance counts as detected (``found``) if a detection of its class scores at least `score_threshold` and has a
    mask IoU of at least `iou_threshold` with it. As published, one detection may match several instances.

    Args:
        ground_truth: with masks.
        results: COCO result dicts with ``segmentation``.
        lists: the published lists by the names "occluded" and "separated". Objects on images that the ground truth does
            not have are left out. None splits the annotations by `split_annotations`.

    Returns:
        dict: the two thresholds; ``split_by``, "lists" or the measure of `hidden_shares`; and for each of
        "all", "occluded" and "separated" ``instances``, ``found`` and ``recall`` in percent.
    """
    by_class = defaultdict(list)
    for result in results:
        if result["score"] >= score_threshold:
            by_class[result["image_id"], result["category_id"]].append(result["segmentation"])
    if lists is not None:
        split_by, parts = "lists", {name: list(_listed(name, ground_truth, chosen)) for name, chosen in lists.items()}
    else:
        split_by, numbers = split_annotations(ground_truth)
        parts = {name: [a for a in ground_truth.instances() if a["id"] in members] for name, members in numbers.items()}
        parts = {name: [(ground_truth.image_id(a), a) for a in part] for name, part in parts.items()}
    parts = {"all": [(ground_truth.image_id(a), a) for a in ground_truth.instances()], **parts}
    report = {"score_threshold": score_threshold, "iou_threshold": iou_threshold, "split_by": split_by}
    return report | {name: _recall(part, by_class, iou_threshold) for name, part in parts.items()}


def split_annotations(ground_truth: GroundTruth) -> tuple[str, dict[str, set[int]]]:
    """Numbers of the annotations that are occluded (in one piece) and separated.

    An instance is hidden in part if its share by `hidden_shares` exceeds one percent, the bound of the level "none".
    It is separated if at least two pieces of its visible mask, each of more than 20 pixels, become one piece
    when the hidden part is added: the amodal mask where there is one, else its occluder by the training rule. What
    the published lists' authors did with COCO (they recovered a depth order by a network) differs.

    Returns:
        The measure of `hidden_shares`, and the numbers under "occluded" and "separated".
    """
    measure, shares = hidden_shares(ground_truth)
    hidden = {number for number, share in shares.items() if share > OCCLUSION_LEVELS["none"][1]}
    separated = set()
    for annotation, whole in _whole_masks(ground_truth, hidden):
        if _is_separated(visible_mask(annotation), whole):
            separated.add(annotation["id"])
    return measure, {"occluded": hidden - separated, "separated": separated}


def _whole_masks(ground_truth: GroundTruth, numbers: set[int]) -> Iterator[tuple[dict, RLE]]:
    """These annotations, each with a mask that covers its hidden part too."""
    if ground_truth.all_have("amodal_segmentation"):
        for annotation in ground_truth.instances():
            if annotation["id"] in numbers:
                yield annotation, ground_truth.rle(annotation["amodal_segmentation"], ground_truth.image_id(annotation))
        return
    for annotation, occluder in occluders_of(ground_truth):
        if annotation["id"] in numbers and occluder is not None:
            yield annotation, coco_mask.merge([annotation["segmentation"], occluder])


def _is_separated(visible: RLE, whole: RLE) -> bool:
    x, y, width, height = (int(value) for value in coco_mask.toBbox(visible))
    if width == 0 or height == 0:
        return False
    pixels = np.ascontiguousarray(coco_mask.decode(visible)[y : y + height, x : x + width])
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    large = [n for n in range(1, count) if statistics[n, cv2.CC_STAT_AREA] > MIN_PIXELS]
    if len(large) < 2:
        return False
    covered = coco_mask.decode(whole) | coco_mask.decode(visible)
    # Neighbouring masks drawn by hand leave slits of a pixel or two.
    covered = cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((5, 5), dtype=np.uint8))
    joined = cv2.connectedComponents(covered, connectivity=8)[1][y : y + height, x : x + width]
    owners = [int(joined[pieces == n][0]) for n in large]
    return len(set(owners)) < len(owners)


def _listed(name: str, ground_truth: GroundTruth, chosen: GroundTruth) -> Iterator[tuple[int | str, dict]]:
    """The objects of a list, each with its image's id and the ground truth's category id of its class."""
    positions = class_positions(chosen.class_names, ground_truth.class_names, f"the list {name!r}", ground_truth.source)
    category_ids = {
        category_id: ground_truth.category_ids[position]
        for category_id, position in zip(chosen.category_ids, positions, strict=True)
        if position is not None
    }
    absent = 0
    for annotation in chosen.instances():
        image_id = chosen.image_id(annotation)
        if image_id in ground_truth.images and annotation["category_id"] in category_ids:
            yield image_id, {**annotation, "category_id": category_ids[annotation["category_id"]]}
        else:
            absent += 1
    if absent:
        logger.warning(
            "%s: %d listed objects are on images or of classes that %s lacks", name, absent, ground_truth.source
        )


def _recall(
    instances: Iterable[tuple[int | str, dict]],
    by_class: Mapping[tuple[int | str, int], list[RLE]],
    iou_threshold: float,
) -> dict[str, float]:
    count = detected = 0
    for image_id, annotation in instances:
        count += 1
        candidates = by_class.get((image_id, annotation["category_id"]))
        if candidates:
            ious = np.asarray(coco_mask.iou(candidates, [annotation["segmentation"]], [0]))
            detected += bool(ious.max() >= iou_threshold)
    return {"instances": count, "found": detected, "recall": 100 * detected / count if count else math.nan}
