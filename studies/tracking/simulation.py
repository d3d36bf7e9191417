"""Detections simulated from the exact truth of a rendered frame, with noise, misses and false alarms.

Letters: D detections, M mask side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bcnet.data.synthetic import SceneObject
from bcnet.ops.boxes import scaled_boxes
from bcnet.structures import Detections

KNOWLEDGE = ("boxes", "order", "amodal")  # what the detections say: each has the former's too
MASK_SIDE = 28
ROI_SCALE = 2.0
COVERING = 20  # pixels from which an object covers another, as in the occluder rule


@dataclass(frozen=True)
class Noise:
    """Faults of the simulated detector.

    Attributes:
        box: standard deviation of a box's sides, as a share of its width or height.
        missed: probability that a visible object is not detected.
        false_alarms: expected number of them in a frame.
        wrong_order: probability that of two objects the wrong one is taken for the occluder.
        unseen_order: probability that it is not noticed that one covers the other.
        visible_share, visible_area: an object of which less is visible, of its area or in pixels, is not detected.
    """

    box: float = 0.03
    missed: float = 0.04
    false_alarms: float = 0.05
    wrong_order: float = 0.1
    unseen_order: float = 0.2
    visible_share: float = 0.1
    visible_area: int = 40


def is_visible(instance: SceneObject, noise: Noise) -> bool:
    """Whether enough of an object is visible for the detector."""
    enough = max(noise.visible_share * instance.amodal_area, noise.visible_area)
    return instance.visible_area >= enough


def simulated(
    objects: list[SceneObject], size: int, knowledge: str, noise: Noise, rng: np.random.Generator
) -> Detections:
    """The detections of a frame of equal sides; the same draws whatever they know."""
    found = [o for o in objects if is_visible(o, noise) and rng.random() >= noise.missed]
    count = rng.poisson(noise.false_alarms)
    alarms = rng.uniform(0, 0.8, (count, 2)) * size
    alarms = np.concatenate([alarms, alarms + rng.uniform(0.05, 0.2, (count, 2)) * size], axis=1)
    true = np.array([[x, y, x + w, y + h] for x, y, w, h in (o.bbox for o in found)], dtype=np.float64).reshape(-1, 4)
    sides = np.tile(true[:, 2:] - true[:, :2], 2)
    boxes = np.clip(np.concatenate([true + rng.normal(0, noise.box, true.shape) * sides, alarms]), 0, size)
    # The more of an object is hidden, the less sure is the detector.
    scores = [0.97 - 0.6 * o.hidden_fraction for o in found] + [0.5] * count
    scores = np.clip(scores + rng.normal(0, 0.06, len(scores)), 0.05, 1)
    classes = [o.category_id - 1 for o in found] + rng.integers(0, 6, count).tolist()
    order = _order(found, len(boxes), noise, rng)
    tensor = torch.from_numpy(boxes).float()
    return Detections(
        image_size=(size, size),
        boxes=tensor,
        scores=torch.from_numpy(scores).float(),
        classes=torch.tensor(classes, dtype=torch.int64),
        maps={"occludee_amodal": _amodal(found, scaled_boxes(tensor, ROI_SCALE))} if knowledge == "amodal" else {},
        occluded_by=None if knowledge == "boxes" else torch.from_numpy(order).float(),
        roi_scale=ROI_SCALE,
    )


def _order(found: list[SceneObject], count: int, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """float [D, D]: at [i, j] the confidence that j covers i; the objects are in order of their depth."""
    order = np.zeros((count, count))
    for i, below in enumerate(found):
        for j, above in enumerate(found[:i]):
            unseen, wrong = rng.random() < noise.unseen_order, rng.random() < noise.wrong_order
            if np.count_nonzero(below.amodal_mask & above.visible_mask) >= COVERING and not unseen:
                order[(j, i) if wrong else (i, j)] = 0.8
    return order


def _amodal(found: list[SceneObject], rois: torch.Tensor) -> torch.Tensor:
    """float [D, M, M]: the amodal masks at the centres of the RoIs' cells; false alarms are whole RoIs' middles."""
    maps = torch.zeros(len(rois), MASK_SIDE, MASK_SIDE)
    quarter = MASK_SIDE // 4
    maps[len(found) :, quarter:-quarter, quarter:-quarter] = 1
    steps = (np.arange(MASK_SIDE) + 0.5) / MASK_SIDE
    for roi_map, instance, (x0, y0, x1, y1) in zip(maps, found, rois.tolist(), strict=False):
        height, width = instance.amodal_mask.shape
        xs, ys = (np.floor(low + steps * (high - low)).astype(int) for low, high in ((x0, x1), (y0, y1)))
        inside = ((xs >= 0) & (xs < width))[None] & ((ys >= 0) & (ys < height))[:, None]
        mask = instance.amodal_mask[np.clip(ys, 0, height - 1)[:, None], np.clip(xs, 0, width - 1)[None]]
        roi_map[:] = torch.from_numpy((mask & inside).astype(np.float32))
    return maps
