"""Occlusion statistics of a data set with amodal masks: hidden fractions and overlapping pairs."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.coco import read_annotations
from bcnet.data.coco_json import read_coco_json
from bcnet.data.source_masks import amodal_rle
from bcnet.words import counted


@dataclass(frozen=True)
class OcclusionStatistics:
    """Statistics over all objects of a data set; shares and fractions are 0..1."""

    images: int
    objects: int
    mean_hidden_fraction: float
    occluded_share: float  # objects with at least one hidden pixel
    heavily_occluded_share: float  # hidden fraction above 0.3
    overlapping_pairs_per_image: float  # pairs of objects whose amodal masks intersect
    same_class_pair_share: float  # share of these pairs; NaN without pairs

    def __str__(self) -> str:
        return (
            f"{counted(self.images, 'image')}, {counted(self.objects, 'object')}, mean hidden fraction "
            f"{self.mean_hidden_fraction:.3f}, "
            f"{self.occluded_share:.1%} of the objects occluded, {self.heavily_occluded_share:.1%} by more than 0.3, "
            f"{self.overlapping_pairs_per_image:.2f} overlapping pairs per image, "
            f"{self.same_class_pair_share:.1%} of them of one class"
        )


def occlusion_statistics(annotation_file: str | os.PathLike) -> OcclusionStatistics:
    """Statistics of a json written by `generate_dataset`; crowds are excluded.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a COCO file, or an object has no amodal mask or no ``hidden_fraction``.
    """
    path = os.fspath(annotation_file)
    records, _ = read_annotations(read_coco_json(path), path, None)
    same_class: list[bool] = []
    fractions: list[float] = []
    for record in records:
        objects = [instance for instance in record.instances if not instance.iscrowd]
        for instance in objects:
            if instance.hidden_fraction is None:
                raise ValueError(f"{path}: annotation {instance.annotation_id!r} has no hidden_fraction")
            fractions.append(instance.hidden_fraction)
        rles = [amodal_rle(record, instance) for instance in objects]
        meeting = np.triu(np.asarray(coco_mask.iou(rles, rles, [0] * len(rles))) > 0, k=1) if rles else np.zeros((0, 0))
        for first, second in zip(*np.nonzero(meeting), strict=True):
            same_class.append(objects[first].category == objects[second].category)
    hidden = np.array(fractions, float)
    images = len(records)
    return OcclusionStatistics(
        images=images,
        objects=len(hidden),
        mean_hidden_fraction=float(hidden.mean()) if len(hidden) else 0.0,
        occluded_share=float((hidden > 0).mean()) if len(hidden) else 0.0,
        heavily_occluded_share=float((hidden > 0.3).mean()) if len(hidden) else 0.0,
        overlapping_pairs_per_image=len(same_class) / max(images, 1),
        same_class_pair_share=float(np.mean(same_class)) if same_class else float("nan"),
    )
