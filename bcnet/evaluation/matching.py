"""COCO matching of detections to ground-truth instances: by descending score, each instance once, same class."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bcnet.evaluation.coco_api import ground_truth_to_coco, results_to_coco
from bcnet.evaluation.ground_truth import GroundTruth


def matched_images(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    iou_type: str = "segm",
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> Iterator[dict]:
    """pycocotools' matches of each image and class in which there is a detection or an instance.

    Args:
        ground_truth: with annotations.
        results: COCO result dicts.
        iou_type: "segm" or "bbox".

    Yields:
        dict: of `COCOeval.evaluate` for one threshold, with ``dtIds`` as numbers of the results from 1.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = COCOeval(
            ground_truth_to_coco(ground_truth, coco_class=COCO),
            results_to_coco(ground_truth, results, iou_type, COCO),
            iou_type,
        )
        evaluation.params.iouThrs = [iou_threshold]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
    yield from (image for image in evaluation.evalImgs if image is not None)


def match_instances(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> dict[int, dict]:
    """The result that was matched to each instance, by annotation number, by mask IoU.

    Instances that were not found, crowds, and what is wholly hidden are absent.
    """
    kept = [result for result in results if result["score"] >= score_threshold]
    found = {}
    for image in matched_images(ground_truth, kept, "segm", iou_threshold, max_detections):
        for number, annotation_id, ignored in zip(
            image["dtIds"], image["dtMatches"][0], image["dtIgnore"][0], strict=True
        ):
            if annotation_id > 0 and not ignored:
                found[int(annotation_id)] = kept[number - 1]
    return found
