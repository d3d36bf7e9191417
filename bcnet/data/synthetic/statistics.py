"""How much occlusion a data set with amodal truth holds."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask


@dataclass(frozen=True)
class OcclusionStatistics:
    """Figures over all objects of a data set; shares and fractions are 0..1."""

    images: int
    objects: int
    mean_hidden_fraction: float
    occluded_share: float  # objects of which at least one pixel is hidden
    heavily_occluded_share: float  # hidden fraction above 0.3
    overlapping_pairs_per_image: float  # pairs of objects whose amodal masks meet
    same_class_pair_share: float  # of these pairs; nan without any

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.objects} objects, mean hidden fraction {self.mean_hidden_fraction:.3f}, "
            f"{self.occluded_share:.1%} of the objects occluded, {self.heavily_occluded_share:.1%} by more than 0.3, "
            f"{self.overlapping_pairs_per_image:.2f} overlapping pairs per image, "
            f"{self.same_class_pair_share:.1%} of them of one class"
        )


def occlusion_statistics(annotation_file: str | os.PathLike) -> OcclusionStatistics:
    """Statistics of a json that `generate_dataset` wrote.

    Raises:
        FileNotFoundError: no such file.
        KeyError: annotations without the amodal keys.
    """
    with open(annotation_file, encoding="utf-8") as file:
        content = json.load(file)
    by_image: dict[int, list[dict]] = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    same_class: list[bool] = []
    for objects in by_image.values():
        rles = [annotation["amodal_segmentation"] for annotation in objects]
        meeting = np.triu(np.asarray(coco_mask.iou(rles, rles, [0] * len(rles))) > 0, k=1)
        for first, second in zip(*np.nonzero(meeting), strict=True):
            same_class.append(objects[first]["category_id"] == objects[second]["category_id"])
    hidden = np.array([annotation["hidden_fraction"] for annotation in content["annotations"]], float)
    images = len(content["images"])
    return OcclusionStatistics(
        images=images,
        objects=len(hidden),
        mean_hidden_fraction=float(hidden.mean()) if len(hidden) else 0.0,
        occluded_share=float((hidden > 0).mean()) if len(hidden) else 0.0,
        heavily_occluded_share=float((hidden > 0.3).mean()) if len(hidden) else 0.0,
        overlapping_pairs_per_image=len(same_class) / max(images, 1),
        same_class_pair_share=float(np.mean(same_class)) if same_class else float("nan"),
    )
