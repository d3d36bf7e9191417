"""Ground truth and results as the `COCO` objects of faster-coco-eval and pycocotools."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core.mask import area as mask_area  # pycocotools' fails on more than 255 masks

from bcnet.evaluation.ground_truth import GroundTruth

NO_MASK = {"size": [1, 1], "counts": "1"}


def ground_truth_to_coco(
    ground_truth: GroundTruth, change: Callable[[dict], dict] | None = None, coco_class: type = COCO
):
    """The evaluators' `COCO` object of a ground truth.

    Args:
        ground_truth: images, annotations and categories.
        change: called with each annotation, returns its replacement; without it a copy is made. The evaluators
            write into the annotations, so every object gets its own.
        coco_class: faster-coco-eval's `COCO` or pycocotools'.
    """
    annotations = [change(annotation) if change else dict(annotation) for annotation in ground_truth.annotations]
    categories = [
        {"id": category_id, "name": name}
        for category_id, name in zip(ground_truth.category_ids, ground_truth.class_names, strict=True)
    ]
    return _indexed(coco_class, _images(ground_truth), annotations, categories)


def results_to_coco(ground_truth: GroundTruth, results: Iterable[dict], iou_type: str, coco_class: type = COCO):
    """The evaluators' `COCO` object of COCO results.

    The size of a detection is the area of its box for box AP and of its mask for mask AP, as in detectron2
    (pycocotools alone would take the box for both).

    Args:
        ground_truth: whose images and categories the results are of.
        results: COCO result dicts with the data set's own image ids; detection n gets the id n, from 1.
        iou_type: "bbox", or "segm" or "boundary", which read ``segmentation``.
        coco_class: faster-coco-eval's `COCO` or pycocotools'.
    """
    key = "bbox" if iou_type == "bbox" else "segmentation"
    annotations = [
        {
            "id": number,
            "image_id": ground_truth.image_numbers[result["image_id"]],
            "category_id": result["category_id"],
            "score": result["score"],
            "iscrowd": 0,
            key: result[key],
        }
        for number, result in enumerate(results, start=1)
    ]
    if key == "bbox":
        areas = [a["bbox"][2] * a["bbox"][3] for a in annotations]
    else:
        areas = mask_area([a["segmentation"] for a in annotations]) if annotations else []
    for annotation, area in zip(annotations, np.asarray(areas, dtype=float).tolist(), strict=True):
        annotation["area"] = area
    if iou_type == "boundary":
        # Boundaries cost most of the evaluation's time, and most detections are of a class that their image does
        # not have: nothing is ever compared with these.
        present = {(annotation["image_id"], annotation["category_id"]) for annotation in ground_truth.annotations}
        for annotation in annotations:
            if (annotation["image_id"], annotation["category_id"]) not in present:
                annotation[key] = NO_MASK
    categories = [{"id": category_id} for category_id in ground_truth.category_ids]
    return _indexed(coco_class, _images(ground_truth), annotations, categories)


def _images(ground_truth: GroundTruth) -> list[dict]:
    return [{**ground_truth.images[image_id], "id": number} for image_id, number in ground_truth.image_numbers.items()]


def _indexed(coco_class: type, images: list, annotations: list, categories: list):
    coco = coco_class()
    coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    coco.createIndex()
    return coco
