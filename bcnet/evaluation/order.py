"""Pairwise occlusion-order accuracy: which of two objects is the occluder."""

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
    """Compares the predicted occlusion relations (`Detections.occlusion`) with the annotated depth order.

    A pair counts if one of the two occludes the other: their amodal masks have more than 20 pixels in common, the
    occluder rule's limit. Without amodal masks, if their boxes overlap as the rule requires.

    Args:
        ground_truth: with a known depth order in some images (`GroundTruth.order_of`).
        results: COCO result dicts with ``number``, ``occluded_by`` and ``depth`` (`Detections.to_coco`).
        matches: the result of each detected instance (`match_instances`).

    Returns:
        dict: ``measure``, how pairs were chosen. ``pairs``, and of these ``found`` (both detected), ``right`` (higher
        confidence that the nearer one is the occluder than the opposite), ``reversed`` and ``undecided`` (equal
        confidences, or none). In percent ``accuracy``, right of found; ``accuracy_decided``, right of right and
        reversed. Of the graph's edges, confidences of at least ``edge_threshold`` that exceed the opposite one:
        ``edge_recall``, found pairs with the right edge; ``edges`` between matched detections of known depth order,
        occluding or not, and ``edge_precision``, those whose occluder is the nearer one. ``depth_accuracy``: found
        pairs that ``depth`` orders correctly.
    """
    by_amodal = ground_truth.all_have("amodal_segmentation")
    counts = dict.fromkeys(("pairs", "found", "right", "reversed", "undecided"), 0)
    depth_right = edges = edges_right = edges_found = 0
    for number, group in ground_truth.by_image.items():
        order = ground_truth.order_of(number)
        if order is None:
            continue
        detected = {a["id"]: matches[a["id"]] for a in group if a["id"] in matches}
        by_result = {result["number"]: i for i, result in detected.items()}
        confidences = {
            (i, by_result[occluder]): confidence
            for i, result in detected.items()
            for occluder, confidence in result["occluded_by"]
            if occluder in by_result
        }
        known = set(order)
        graph_edges = [
            (i, j)
            for (i, j), confidence in confidences.items()
            if confidence >= EDGE_THRESHOLD and confidence > confidences.get((j, i), 0.0)
        ]
        edges_right += sum(edge in known for edge in graph_edges)
        edges += sum((i, j) in known or (j, i) in known for i, j in graph_edges)
        for i, j in _occluding_pairs(ground_truth, group, order, by_amodal):
            counts["pairs"] += 1
            if i not in detected or j not in detected:
                continue
            counts["found"] += 1
            forward, backward = confidences.get((i, j), 0.0), confidences.get((j, i), 0.0)
            counts["right" if forward > backward else "reversed" if backward > forward else "undecided"] += 1
            edges_found += forward >= EDGE_THRESHOLD and forward > backward
            depth_right += detected[i]["depth"] > detected[j]["depth"]
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
    """True if every result names its occluders."""
    return bool(results) and all("occluded_by" in result and "number" in result for result in results)


def _occluding_pairs(
    ground_truth: GroundTruth, group: Sequence[dict], order: Sequence[tuple[int, int]], by_amodal: bool
) -> Iterator[tuple[int, int]]:
    """The pairs of the depth order in which the second occludes part of the first."""
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
