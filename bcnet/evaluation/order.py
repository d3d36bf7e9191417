"""Is the right one of two objects taken for the occluder?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.occlusion.rule import IOU_THRESHOLD, MIN_PIXELS, inclusive_box_iou
from bcnet.structures.occlusion_graph import EDGE_THRESHOLD


def occlusion_order_accuracy(
    ground_truth: GroundTruth, results: Sequence[dict], matches: Mapping[int, dict]
) -> dict[str, object]:
    """Compares who lies on top of whom, as `Detections.occlusion` says it, with the annotated order of depth.

    A pair counts if one of the two hides the other: their amodal masks have more than 20 pixels in common, the
    occluder rule's limit. Without amodal masks, if their boxes overlap as the rule demands.

    Args:
        ground_truth: with a known order in some images (`GroundTruth.order_of`).
        results: COCO result dicts with ``number``, ``occluded_by`` and ``depth`` (`Detections.to_coco`).
        matches: the result of each instance that was found (`match_instances`).

    Returns:
        dict: ``measure``, how pairs were chosen. ``pairs``, and of these ``found`` (both detected), ``right`` (surer
        that the nearer one lies on top than the opposite), ``reversed`` and ``undecided`` (equally sure, or
        nothing said). In percent ``accuracy``, right of found; ``accuracy_decided``, right of right and reversed.
        Of the graph's edges, confidences of at least ``edge_threshold`` that exceed the opposite one:
        ``edge_recall``, found pairs with the right edge; ``edges`` between matched detections of known order, hiding
        or not, and ``edge_precision``, those whose occluder is the nearer one. ``depth_accuracy``: found pairs that
        ``depth`` orders rightly.
    """
    by_amodal = ground_truth.all_have("amodal_segmentation")
    counts = dict.fromkeys(("pairs", "found", "right", "reversed", "undecided"), 0)
    depth_right = edges = edges_right = edges_found = 0
    for number, group in ground_truth.by_image.items():
        order = ground_truth.order_of(number)
        if order is None:
            continue
        found = {a["id"]: matches[a["id"]] for a in group if a["id"] in matches}
        by_result = {result["number"]: i for i, result in found.items()}
        sure = {
            (i, by_result[occluder]): confidence
            for i, result in found.items()
            for occluder, confidence in result["occluded_by"]
            if occluder in by_result
        }
        known = set(order)
        drawn = [
            pair
            for pair, confidence in sure.items()
            if confidence >= EDGE_THRESHOLD and confidence > sure.get(pair[::-1], 0.0)
        ]
        edges_right += sum(edge in known for edge in drawn)
        edges += sum(edge in known or edge[::-1] in known for edge in drawn)
        for pair in _hiding_pairs(ground_truth, group, order, by_amodal):
            counts["pairs"] += 1
            if pair[0] not in found or pair[1] not in found:
                continue
            counts["found"] += 1
            forward, backward = sure.get(pair, 0.0), sure.get(pair[::-1], 0.0)
            counts["right" if forward > backward else "reversed" if backward > forward else "undecided"] += 1
            edges_found += forward >= EDGE_THRESHOLD and forward > backward
            depth_right += found[pair[0]]["depth"] > found[pair[1]]["depth"]
    return {
        "measure": "amodal masks that overlap" if by_amodal else "boxes that overlap",
        **counts,
        "accuracy": _percent(counts["right"], counts["found"]),
        "accuracy_decided": _percent(counts["right"], counts["right"] + counts["reversed"]),
        "edge_threshold": EDGE_THRESHOLD,
        "edge_recall": _percent(edges_found, counts["found"]),
        "edges": edges,
        "edge_precision": _percent(edges_right, edges),
        "depth_accuracy": _percent(depth_right, counts["found"]),
    }


def has_relations(results: Sequence[dict]) -> bool:
    """True if every result says what lies on it."""
    return bool(results) and all("occluded_by" in result and "number" in result for result in results)


def _hiding_pairs(
    ground_truth: GroundTruth, group: Sequence[dict], order: Sequence[tuple[int, int]], by_amodal: bool
) -> Iterator[tuple[int, int]]:
    """The pairs of the order in which the second hides part of the first."""
    by_number = {annotation["id"]: annotation for annotation in group if not annotation["iscrowd"]}
    if by_amodal:
        image_id = ground_truth.image_id(group[0])
        masks = {i: ground_truth.rle(a["amodal_segmentation"], image_id) for i, a in by_number.items()}
        for i, j in order:
            if coco_mask.area(coco_mask.merge([masks[i], masks[j]], intersect=True)) > MIN_PIXELS:
                yield i, j
        return
    for i, j in order:
        boxes = np.array([by_number[i]["bbox"], by_number[j]["bbox"]])
        if inclusive_box_iou(boxes)[0, 1] > IOU_THRESHOLD:
            yield i, j


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan
