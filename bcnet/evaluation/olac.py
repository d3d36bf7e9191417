"""AP by COCO-OLAC's occlusion level of the image: low, mid or high."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from bcnet.data.coco_json import short
from bcnet.evaluation.average_precision import images_average_precision
from bcnet.evaluation.ground_truth import GroundTruth
from bcnet.files import read_json

logger = logging.getLogger(__name__)

OLAC_LEVELS = ("low", "mid", "high")


def read_olac_labels(path: str | os.PathLike) -> dict[str, str]:
    """Reads a file of COCO-OLAC (Wei et al., "COCO-OLAC: A Benchmark for Occluded Panoptic Segmentation", 2024).

    It is a JSON object, ``occlusion_label_val.json``: the level of each image by its file name without suffix.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not such a file; names the first entry that is not one of the levels.
    """
    labels = read_json(path)
    if not isinstance(labels, dict):
        raise ValueError(f"{path} must hold a JSON object of occlusion levels by file name, got {short(labels)}")
    for name, level in labels.items():
        if level not in OLAC_LEVELS:
            raise ValueError(f"{path}: the level of {name!r} is {short(level)}; it must be one of {OLAC_LEVELS}")
    return labels


def olac_average_precision(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    labels: Mapping[str, str],
    iou_type: str = "segm",
    max_detections: int = 100,
) -> dict:
    """AP over the images of each occlusion level.

    The levels are people's judgement of the image: low without occlusion, mid with up to half of an object hidden, high
    with more. A level has its own images, and hence its own false positives.

    Args:
        ground_truth: with annotations.
        results: COCO result dicts.
        labels: of `read_olac_labels`.
        iou_type: "segm" or "bbox".

    Returns:
        dict: ``iou_type``; ``levels``: for each the number of ``images`` and ``AP, AP50, AP75`` in percent;
        ``unlabelled``, the number of images without a label, which are in no level.
    """
    numbers: dict[str | None, set[int]] = {level: set() for level in (*OLAC_LEVELS, None)}
    for image_id, image in ground_truth.images.items():
        stem = os.path.splitext(os.path.basename(str(image["file_name"])))[0]
        numbers[labels.get(stem)].add(ground_truth.image_numbers[image_id])
    unlabelled = len(numbers.pop(None))
    if unlabelled:
        logger.warning("%d of %d images have no occlusion level of COCO-OLAC", unlabelled, len(ground_truth.images))
    levels = {
        level: {"images": len(chosen)}
        | images_average_precision(ground_truth, results, chosen, iou_type, max_detections)
        for level, chosen in numbers.items()
    }
    return {"iou_type": iou_type, "levels": levels, "unlabelled": unlabelled}
