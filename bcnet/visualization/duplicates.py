"""Near-identical detections, which pictures draw once: the same object found as two classes, or annotated twice.

Letters: D detections.
"""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import box_iou

from bcnet.structures import Detections

BOX_IOU = 0.85  # lowest IoU of near-identical boxes
MASK_IOU = 0.7  # and of their masks: two objects may well have one box


def near_identical(detections: Detections) -> list[list[int]]:
    """Groups of detections that cover the same pixels, each with its first one in front.

    Every detection is in one group. Two belong together if their boxes and, where there are masks, the masks in
    their RoIs agree (`BOX_IOU`, `MASK_IOU`); classes do not matter.
    """
    same = _agree(detections).tolist()
    groups: list[list[int]] = []
    for index in range(len(detections)):
        group = next((group for group in groups if same[group[0]][index]), None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    return groups


def _agree(detections: Detections) -> Tensor:
    """bool [D, D]."""
    boxes = box_iou(detections.boxes, detections.boxes) >= BOX_IOU
    if detections.occludee_mask is None:
        return boxes
    masks = (detections.occludee_mask >= detections.mask_threshold).flatten(1).float()
    common, areas = masks @ masks.T, masks.sum(dim=1)
    union = areas[:, None] + areas - common
    # Two empty masks agree.
    return boxes & (common >= MASK_IOU * union)
