"""AP under occlusion: by the hidden share of the instances, and on the images in which objects overlap."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from bcnet.data.coco_occ import DEFAULT_OVERLAP, THRESHOLD, box_overlaps
from bcnet.evaluation.average_precision import images_average_precision, subset_average_precision
from bcnet.evaluation.ground_truth import IGNORED_AREA, GroundTruth, visible_mask
from bcnet.occlusion.rule import occluder_rles
from bcnet.occlusion.shares import hidden_share, occluder_share

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


def in_level(share: float, level: tuple[float, float]) -> bool:
    """Whether a hidden share lies above the level's first and up to its second number; a level from 0 includes 0."""
    low, high = level
    return (low < share or share == low == 0) and share <= high


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
    """
    instances = ground_truth.instances()
    if ground_truth.all_have("hidden_fraction"):
        return "hidden_fraction", {a["id"]: float(a["hidden_fraction"]) for a in instances}
    if ground_truth.all_have("amodal_segmentation"):
        return "amodal", {a["id"]: hidden_share(a["amodal_segmentation"], visible_mask(a)) for a in instances}
    shares = {a["id"]: occluder_share(visible_mask(a), occluder) for a, occluder in occluders_of(ground_truth)}
    return "occluder_share", shares


def occlusion_average_precision(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    levels: Mapping[str, tuple[float, float]] = OCCLUSION_LEVELS,
    max_detections: int = 100,
) -> dict:
    """Mask AP of the instances of each occlusion level; instances of other levels are ignored.

    A detection of an instance of another level is ignored: neither a true nor a false positive. One that matches
    nothing is a false positive in every level. Levels of few instances therefore have lower AP than the whole: compare
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
        members = {number for number, share in shares.items() if in_level(share, (low, high))}
        metrics = subset_average_precision(
            ground_truth,
            results,
            lambda annotation, members=members: annotation["id"] in members,
            "segm",
            max_detections,
        )
        report["levels"][name] = {"from": low, "to": high, "instances": len(members), **metrics}
    return report


def overlap_average_precision(
    ground_truth: GroundTruth,
    results: Sequence[dict],
    overlap: str = DEFAULT_OVERLAP,
    threshold: float = THRESHOLD,
    max_detections: int = 100,
) -> dict:
    """Mask AP on the images in which two objects' boxes overlap, as on COCO-OCC (`bcnet.data.coco_occ`).

    Args:
        ground_truth: with annotations that have masks.
        results: COCO result dicts with ``segmentation``.
        overlap: a reading of "overlap" by boxes, of `box_overlaps`.
        threshold: lowest overlap of a pair in an image that is selected.

    Returns:
        dict: ``overlap``, ``threshold``, ``images`` (how many are selected) and ``AP, AP50, AP75`` in percent.
    """
    selected = set()
    for number, group in ground_truth.by_image.items():
        objects = [a for a in group if not a["iscrowd"]]
        overlaps = box_overlaps([a["bbox"] for a in objects], [a["category_id"] for a in objects], overlap)
        if overlaps.max(initial=0) >= threshold:
            selected.add(number)
    report = {"overlap": overlap, "threshold": threshold, "images": len(selected)}
    return report | images_average_precision(ground_truth, results, selected, "segm", max_detections)


def occluders_of(ground_truth: GroundTruth) -> Iterator[tuple[dict, dict | None]]:
    """Each instance with its occluder mask by the training rule, from the visible masks and without depth order."""
    for group in ground_truth.by_image.values():
        occluders = occluder_rles(
            [a["bbox"] for a in group],
            [visible_mask(a) for a in group],
            [bool(a["iscrowd"]) for a in group],
            ground_truth.image_size(ground_truth.image_id(group[0])),
        )
        for annotation, occluder in zip(group, occluders, strict=True):
            if not annotation["iscrowd"] and annotation["area"] < IGNORED_AREA:
                yield annotation, occluder
