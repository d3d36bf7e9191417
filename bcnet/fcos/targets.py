"""FCOS target assignment: class and box distances of each point, with center sampling and size ranges.

Letters: B images, G objects of an image, P points of all levels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Pairs of points and objects at once: all points of an image of 800 x 1333 with 47 objects. Each takes dozens of bytes.
MAX_PAIRS = 2**20


class FCOSTargets(NamedTuple):
    """Targets of B images at P points.

    Attributes:
        classes: int64 [B, P], 0..K-1, or K where no object is assigned.
        distances: float32 [B, P, 4], left, top, right, bottom in strides; 1 where no object is assigned.
    """

    classes: Tensor
    distances: Tensor


def assign_targets(
    points: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Sequence[Tensor],
    classes: Sequence[Tensor],
    *,
    num_classes: int,
    center_sampling_radius: float,
    sizes_of_interest: Sequence[float],
) -> FCOSTargets:
    """Assigns objects to points: FCOS section 3.2 with center sampling, as BCNet's published code does.

    A point is positive for an object if it lies strictly inside the object's centre box (`radius` strides
    around its centre, clipped to the object) and the largest of its four distances lies in its level's range
    of sizes, both ends included. If a point is positive for several objects, the one with the smallest box is assigned.

    Args:
        points: per level, float32 [P_l, 2].
        strides: per level, in pixels.
        boxes: per image, float32 [G, 4], xyxy in absolute pixels.
        classes: per image, int64 [G].
        num_classes: K, the label of points without an object.
        center_sampling_radius: in strides; 0 takes the object's whole box.
        sizes_of_interest: upper bounds in pixels of all levels but the last.
    """
    bounds = [-1.0, *map(float, sizes_of_interest), float("inf")]
    all_points = torch.cat(list(points))
    stride = torch.cat([p.new_full((len(p),), float(s)) for p, s in zip(points, strides, strict=True)])
    lower = torch.cat([p.new_full((len(p),), low) for p, low in zip(points, bounds[:-1], strict=True)])
    upper = torch.cat([p.new_full((len(p),), high) for p, high in zip(points, bounds[1:], strict=True)])
    assigned = [
        _assign_image((all_points, stride, lower, upper), b, c, num_classes, center_sampling_radius)
        for b, c in zip(boxes, classes, strict=True)
    ]
    return FCOSTargets(torch.stack([c for c, _ in assigned]), torch.stack([d for _, d in assigned]))


def _assign_image(
    points: Sequence[Tensor], boxes: Tensor, classes: Tensor, num_classes: int, radius: float
) -> tuple[Tensor, Tensor]:
    """The targets of one image, some points at a time: every point is assigned by itself."""
    at_once = max(MAX_PAIRS // max(len(boxes), 1), 1)
    assigned = []
    for centres, stride, lower, upper in zip(*(values.split(at_once) for values in points), strict=True):
        near = slice(None)
        if centres.device.type == "cpu" and len(centres) < len(points[0]):
            # Of a crowd most objects are far from these points. On a GPU asking for the near ones would make the host
            # wait.
            near = ((boxes[:, 2:] > centres.amin(dim=0)) & (boxes[:, :2] < centres.amax(dim=0))).all(dim=1)
        part = _assign_points(centres, stride, lower, upper, boxes[near], classes[near], num_classes, radius)
        assigned.append(part)
    return torch.cat([c for c, _ in assigned]), torch.cat([d for _, d in assigned])


def _assign_points(
    points: Tensor,
    stride: Tensor,
    lower: Tensor,
    upper: Tensor,
    boxes: Tensor,
    classes: Tensor,
    num_classes: int,
    radius: float,
) -> tuple[Tensor, Tensor]:
    if len(boxes) == 0:
        background = torch.full((len(points),), num_classes, dtype=torch.int64, device=points.device)
        return background, points.new_ones(len(points), 4)

    x_inside, x_size = _along_axis(points[:, 0], boxes[:, 0], boxes[:, 2], radius * stride)
    y_inside, y_size = _along_axis(points[:, 1], boxes[:, 1], boxes[:, 3], radius * stride)
    size = torch.maximum(x_size, y_size)
    candidates = x_inside & y_inside & (size >= lower[:, None]) & (size <= upper[:, None])

    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    smallest, index = torch.where(candidates, area, torch.inf).min(dim=1)  # [P]
    positive = torch.isfinite(smallest)
    assigned = boxes[index]
    distances = torch.cat([points - assigned[:, :2], assigned[:, 2:] - points], dim=1) / stride[:, None]
    return torch.where(positive, classes[index], num_classes), torch.where(positive[:, None], distances, 1.0)


def _along_axis(points: Tensor, low: Tensor, high: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """On one axis, whether points lie in the centre boxes of objects, and their larger distance to the objects' sides.

    Args:
        points: [P].
        low, high: [G], the sides of the objects' boxes.
        reach: [P], of the centre box around the centre; zero takes the whole box.

    Returns:
        bool [P, G] and float [P, G].
    """
    points, reach = points[:, None], reach[:, None]
    centre = (low + high) / 2
    whole = reach <= 0
    inside = (points > torch.maximum(torch.where(whole, low, centre - reach), low)) & (
        points < torch.minimum(torch.where(whole, high, centre + reach), high)
    )
    return inside, torch.maximum(points - low, high - points)
