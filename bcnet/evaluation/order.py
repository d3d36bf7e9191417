"""Occlusion order: pairwise accuracy, and precision, recall and F1 of directed pairs, beside baselines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.evaluation.ground_truth import GroundTruth, visible_mask
from bcnet.evaluation.order_baselines import BASELINES, OrderedObject, bordering_pairs
from bcnet.occlusion.rule import IOU_THRESHOLD, MIN_PIXELS, inclusive_box_iou
from bcnet.structures.occlusion_graph import EDGE_THRESHOLD

Pair = tuple[int, int]  # annotation numbers: occludee, occluder
ANNOTATED, AMODAL_OVERLAP, BOX_OVERLAP = "annotated occlusions", "amodal masks that overlap", "boxes that overlap"
_FIGURES = ("precision", "recall", "f1")


@dataclass
class OrderCounts:
    """What is counted of the model or of a baseline.

    Attributes:
        right, reversed, undecided: pairs of which one object occludes the other, by the predicted direction.
        true_positives, predicted, actual: directed pairs.
        images: precision, recall and F1 of each image, 0..1.
    """

    right: int = 0
    reversed: int = 0
    undecided: int = 0
    true_positives: int = 0
    predicted: int = 0
    actual: int = 0
    images: list[tuple[float, ...]] = field(default_factory=list)

    def add_direction(self, forward: float, backward: float) -> None:
        """Counts a pair by how strongly its true direction and the opposite one are predicted."""
        if forward > backward:
            self.right += 1
        elif backward > forward:
            self.reversed += 1
        else:
            self.undecided += 1

    def add_image(self, predicted: Set[Pair], actual: Set[Pair]) -> None:
        """Counts the directed pairs of an image."""
        right = len(predicted & actual)
        self.true_positives += right
        self.predicted += len(predicted)
        self.actual += len(actual)
        # As InstaOrder has it: no predicted pair is a precision of 1, no actual pair a recall of 1.
        self.images.append(_precision_recall_f1(right, len(predicted), len(actual), empty=1.0))

    def figures(self) -> dict:
        """Accuracies, precision, recall and F1 in percent; nan where there is nothing to count."""
        found = self.right + self.reversed + self.undecided
        pooled = _precision_recall_f1(self.true_positives, self.predicted, self.actual, empty=math.nan)
        means = np.mean(self.images, axis=0).tolist() if self.images else [math.nan] * len(_FIGURES)
        return {
            "accuracy": _percent(self.right, found),
            "accuracy_decided": _percent(self.right, self.right + self.reversed),
            **_in_percent(pooled),
            "per_image": {"images": len(self.images), **_in_percent(means)},
        }


def occlusion_order_accuracy(
    ground_truth: GroundTruth, results: Sequence[dict], matches: Mapping[int, dict]
) -> dict[str, object]:
    """Compares the predicted occlusion relations (`Detections.occlusion`) with the annotated order.

    A pair counts if one of the two occludes the other: their amodal masks have more than 20 pixels in common, the
    occluder rule's limit. Without amodal masks, if their boxes overlap as the rule requires. Where the occlusions
    themselves are annotated, every such pair counts. Pairs that occlude each other (`ImageRecord.in_front` has both
    directions) have no order: they are left out of the accuracies.

    Precision, recall and F1 are those of InstaOrder's Table 3 (Lee and Park, CVPR 2022): "i is occluded by j" and "j is
    occluded by i" are two decisions, each compared with the annotation, over all pairs of objects of an image. Here the
    objects are those that were detected, in images with two of them or more, objects of unknown order aside. InstaOrder
    reports the means over images, ``per_image``; the figures beside them are of the pairs of all images together.

    The baselines (`BASELINES`) see the annotated visible masks of the same detected objects. They are right or
    reversed on the same pairs, and predict an occlusion where two masks border, as InstaOrder's baselines do.

    Args:
        ground_truth: with a known order in some images (`GroundTruth.order_of`).
        results: COCO result dicts with ``number``, ``occluded_by`` and ``depth`` (`Detections.to_coco`).
        matches: the result of each detected instance (`match_instances`).

    Returns:
        dict: ``measure``, how pairs were chosen. ``pairs``, and of these ``found`` (both detected), ``right`` (higher
        confidence that the nearer one is the occluder than the opposite), ``reversed`` and ``undecided`` (equal
        confidences, or none); ``mutual``, found pairs that occlude each other. In percent ``accuracy``, right of found;
        ``accuracy_decided``, right of right and reversed; ``precision``, ``recall`` and ``f1`` of directed pairs,
        predicted from a confidence of ``edge_threshold`` on; ``per_image``, the number of ``images`` and the means of
        the three over them. Of the graph's edges, confidences of at least ``edge_threshold`` that exceed the opposite
        one: ``edge_recall``, found pairs with the right edge; ``edges`` between matched detections of known order,
        occluding or not, and ``edge_precision``, those whose occluder is the nearer one. ``depth_accuracy``: found
        pairs that ``depth`` orders correctly. ``baselines``: by name ``accuracy``, ``accuracy_decided``, ``precision``,
        ``recall``, ``f1`` and ``per_image``.
    """
    measure = _measure(ground_truth)
    counts = dict.fromkeys(("pairs", "found", "mutual"), 0)
    model, baselines = OrderCounts(), {name: OrderCounts() for name in BASELINES}
    depth_right = edges = edges_right = edges_found = 0
    for number, group in ground_truth.by_image.items():
        order = ground_truth.order_of(number)
        if order is None:
            continue
        known = set(order)
        detected = {a["id"]: matches[a["id"]] for a in group if a["id"] in matches and not a.get("unordered")}
        confidences = _confidences(detected)
        graph_edges = {
            (i, j)
            for (i, j), confidence in confidences.items()
            if confidence >= EDGE_THRESHOLD and confidence > confidences.get((j, i), 0.0)
        }
        edges_right += len(graph_edges & known)
        edges += sum(edge in known or edge[::-1] in known for edge in graph_edges)
        actual = set(_occluding_pairs(ground_truth, group, order, measure))
        directed = [pair for pair in actual if pair[::-1] not in known]
        actual = {pair for pair in actual if detected.keys() >= set(pair)}
        found = [pair for pair in directed if pair in actual]
        counts["pairs"] += len(directed)
        counts["found"] += len(found)
        counts["mutual"] += (len(actual) - len(found)) // 2
        for i, j in found:
            model.add_direction(confidences.get((i, j), 0.0), confidences.get((j, i), 0.0))
            edges_found += (i, j) in graph_edges
            depth_right += detected[i]["depth"] > detected[j]["depth"]
        if len(detected) > 1:
            model.add_image({pair for pair, value in confidences.items() if value >= EDGE_THRESHOLD}, actual)
            _count_baselines(baselines, [a for a in group if a["id"] in detected], found, actual)
    return {
        "measure": measure,
        **counts,
        **{name: getattr(model, name) for name in ("right", "reversed", "undecided")},
        **model.figures(),
        "edge_threshold": EDGE_THRESHOLD,
        "edge_recall": _percent(edges_found, counts["found"]),
        "edges": edges,
        "edge_precision": _percent(edges_right, edges),
        "depth_accuracy": _percent(depth_right, counts["found"]),
        "baselines": {name: baseline.figures() for name, baseline in baselines.items()},
    }


def has_relations(results: Sequence[dict]) -> bool:
    """True if every result names its occluders."""
    return bool(results) and all("occluded_by" in result and "number" in result for result in results)


def _confidences(detected: Mapping[int, dict]) -> dict[Pair, float]:
    """The confidences between the results of these instances."""
    by_result = {result["number"]: i for i, result in detected.items()}
    return {
        (i, by_result[occluder]): confidence
        for i, result in detected.items()
        for occluder, confidence in result["occluded_by"]
        if occluder in by_result
    }


def _count_baselines(
    baselines: Mapping[str, OrderCounts], group: Sequence[dict], found: Sequence[Pair], actual: Set[Pair]
) -> None:
    objects = {annotation["id"]: OrderedObject.from_rle(visible_mask(annotation)) for annotation in group}
    bordering = list(bordering_pairs(objects))
    for name, cue in BASELINES.items():
        predicted = set()
        for i, j in bordering:
            of_i, of_j = cue(objects[i], objects[j])
            if of_i != of_j:
                predicted.add((i, j) if of_j > of_i else (j, i))
        baselines[name].add_image(predicted, actual)
        for occludee, occluder in found:
            backward, forward = cue(objects[occludee], objects[occluder])
            baselines[name].add_direction(forward, backward)


def _measure(ground_truth: GroundTruth) -> str:
    if ground_truth.annotated_occlusions:
        return ANNOTATED
    return AMODAL_OVERLAP if ground_truth.all_have("amodal_segmentation") else BOX_OVERLAP


def _occluding_pairs(
    ground_truth: GroundTruth, group: Sequence[dict], order: Sequence[Pair], measure: str
) -> Iterator[Pair]:
    """The pairs of the order in which the second occludes part of the first."""
    if measure == ANNOTATED:
        yield from order
        return
    by_number = {annotation["id"]: annotation for annotation in group if not annotation["iscrowd"]}
    if measure == AMODAL_OVERLAP:
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


def _precision_recall_f1(right: int, predicted: int, actual: int, empty: float) -> tuple[float, ...]:
    """Shares 0..1; `empty` where there is nothing to divide by. F1 is 2 right / (predicted + actual)."""
    return tuple(right / whole if whole else empty for whole in (predicted, actual, (predicted + actual) / 2))


def _in_percent(figures: Sequence[float]) -> dict[str, float]:
    return {name: 100 * value for name, value in zip(_FIGURES, figures, strict=True)}


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan
