"""AP by occlusion level: how much worse is an instance found when others hide part of it?"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pycocotools import mask as coco_mask

from bcnet.evaluation.average_precision import subset_average_precision
from bcnet.evaluation.ground_truth import IGNORED_AREA, GroundTruth
from bcnet.occlusion.rule import occluder_rles

logger = logging.getLogger(__name__)

# Level: share of the instance that is hidden, above the first and up to the second number (the first level
# includes 0). Up to a quarter and beyond are the levels of COCO amodal (Zhu et al., CVPR 2017), which split
# here once more at one half; one percent is left for annotation noise.
OCCLUSION_LEVELS: dict[str, tuple[float, float]] = {
    "none": (0.0, 0.01),
    "light": (0.01, 0.25),
    "medium": (0.25, 0.5),
    "heavy": (0.5, 1.0),
}

MEASURES = {
    "hidden_fraction": "hidden share as annotated",
    "amodal": "share of the amodal mask that is not visible",
    "occluder_share": "neighbours' share of the pixels explained in the box; an estimate from visible masks",
}


def hidden_shares(ground_truth: GroundTruth) -> tuple[str, dict[int, float]]:
    """How much of every instance is hidden, 0..1, by the best measure that the annotations allow.

    One measure serves the whole file, the first of these that every instance (crowds aside) allows:

    - "hidden_fraction": the key of this name.
    - "amodal": 1 - area(visible and amodal) / area(amodal) from ``amodal_segmentation``.
    - "occluder_share": area(occluder) / (area(occluder) + area(instance)), with the occluder mask of the training
      rule (`bcnet.occlusion.occluder_rles`): the masks of overlapping neighbours inside the instance's box.
      Visible masks do not say which of the two is in front, nor how large the hidden part is. The share
      therefore tells crowded instances from free ones rather than hidden pixels, and its figures must not be
      compared with those of the other two measures.

    Returns:
        The measure's name, and the share by annotation number (``id`` in `GroundTruth.annotations`).

    Raises:
        ValueError: a ``hidden_fraction`` outside 0..1; names file, annotation and value.
    """
    instances = ground_truth.instances()
    if ground_truth.all_have("hidden_fraction"):
        for annotation in instances:
            if not 0 <= annotation["hidden_fraction"] <= 1:
                raise ValueError(
                    f"{ground_truth.source}: hidden_fraction of an annotation of image "
                    f"{_image_id(ground_truth, annotation)!r} is {annotation['hidden_fraction']}, not in 0..1"
                )
        return "hidden_fraction", {a["id"]: float(a["hidden_fraction"]) for a in instances}
    if ground_truth.all_have("amodal_segmentation"):
        return "amodal", {a["id"]: _amodal_share(ground_truth, a) for a in instances}
    return "occluder_share", _occluder_shares(ground_truth)


def occlusion_average_precision(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    levels: Mapping[str, tuple[float, float]] = OCCLUSION_LEVELS,
    max_detections: int = 100,
) -> dict:
    """Mask AP of the instances of each occlusion level; instances of other levels are ignored.

    A detection of an instance of another level counts neither as right nor as wrong, one that matches nothing
    counts as false in every level. Levels of few instances therefore have lower AP than the whole: compare
    two models at one level, not two levels of one model.

    Args:
        ground_truth: with annotations that have masks.
        results: COCO result dicts with ``segmentation``.
        levels: name to (above, up to) hidden share; a level from 0 includes 0.

    Returns:
        dict: ``measure`` (see `hidden_shares`), its ``description``, and ``levels``: for each name ``from``, ``to``,
        ``instances`` and ``AP, AP50, AP75`` in percent.
    """
    measure, shares = hidden_shares(ground_truth)
    report: dict = {"measure": measure, "description": MEASURES[measure], "levels": {}}
    for name, (low, high) in levels.items():
        members = {number for number, share in shares.items() if (low < share or share == low == 0) and share <= high}
        metrics = subset_average_precision(
            ground_truth,
            results,
            lambda annotation, members=members: annotation["id"] in members,
            "segm",
            max_detections,
        )
        report["levels"][name] = {"from": low, "to": high, "instances": len(members), **metrics}
    return report


def _image_id(ground_truth: GroundTruth, annotation: dict) -> int | str:
    return ground_truth.image_ids[annotation["image_id"] - 1]


def _amodal_share(ground_truth: GroundTruth, annotation: dict) -> float:
    image_id = _image_id(ground_truth, annotation)
    amodal = ground_truth.rle(annotation["amodal_segmentation"], image_id)
    visible = annotation["segmentation"]
    area = float(coco_mask.area(amodal))
    seen = float(coco_mask.area(coco_mask.merge([amodal, visible], intersect=True)))
    return 1 - seen / area if area else 0.0


def _occluder_shares(ground_truth: GroundTruth) -> dict[int, float]:
    by_image = defaultdict(list)
    for annotation in ground_truth.annotations:
        by_image[_image_id(ground_truth, annotation)].append(annotation)
    shares = {}
    for image_id, group in by_image.items():
        rles = [annotation["segmentation"] for annotation in group]
        occluders = occluder_rles(
            [a["bbox"] for a in group],
            rles,
            [bool(a["iscrowd"]) for a in group],
            ground_truth.image_size(image_id),
        )
        for annotation, rle, occluder in zip(group, rles, occluders, strict=True):
            if not annotation["iscrowd"] and annotation["area"] < IGNORED_AREA:
                covered = 0.0 if occluder is None else float(coco_mask.area(occluder))
                area = float(coco_mask.area(rle))
                shares[annotation["id"]] = covered / (covered + area) if covered else 0.0
    return shares
