"""Selection with static shapes for export: fixed top-k and class-offset NMS, without branches on the number of boxes.

What is selected has a fixed length; `Selection.valid` says which entries are real, and these come first.

Letters: N candidates, k selected.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

LOWEST = -1e30  # rank of what is no candidate: below every score and logit


class Selection(NamedTuple):
    """Boxes with their scores and classes, by descending score, padded to a fixed length.

    Attributes:
        boxes: float32 [k, 4], xyxy in absolute pixels; zeros where not valid.
        scores: float32 [k]; zeros where not valid.
        classes: int64 [k]; zeros where not valid.
        valid: bool [k], true ones first.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    valid: Tensor


def fixed_topk(scores: Tensor, valid: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best of the valid scores; fewer only if there are fewer entries and their number is a constant.

    Args:
        scores: float [N].
        valid: bool [N], the entries that may be selected.
        k: the number to select. Where N is symbolic, the scores are padded, so that k stays a constant.

    Returns:
        scores: float [k], descending.
        indices: int64 [k]; 0 for padding.
        valid: bool [k].
    """
    ranked = torch.where(valid, scores, LOWEST)
    count = scores.shape[0]
    if isinstance(count, int):
        best, indices = ranked.topk(min(k, count))
        return best, indices, best > LOWEST / 2
    best, indices = F.pad(ranked, (0, k), value=LOWEST).topk(k)
    kept = best > LOWEST / 2
    return best, torch.where(kept, indices, 0), kept


def class_offset_nms(
    boxes: Tensor, scores: Tensor, classes: Tensor, valid: Tensor, iou_threshold: float, k: int
) -> tuple[Tensor, Tensor]:
    """NMS within each class, and the k best of what is left.

    As `torchvision.ops.batched_nms` for few boxes: those of a class are moved so far that they overlap no others. For
    many it loops over the classes instead, which takes a branch on their number; the two differ by the rounding of
    coordinates alone.

    Args:
        boxes: float [N, 4], xyxy.
        scores: float [N].
        classes: int64 [N].
        valid: bool [N], the candidates.
        iou_threshold: IoU above which one of two boxes of a class is dropped.
        k: maximum number of boxes.

    Returns:
        kept: int64 [k], positions by descending score; 0 where not valid.
        valid: bool [k], true ones first.
    """
    offset = torch.where(valid[:, None], boxes, LOWEST).max() + 1
    moved = boxes + (classes.to(boxes.dtype) * offset)[:, None]
    # Padding lies in one place and ranks last: it suppresses itself, and nothing else.
    moved = torch.where(valid[:, None], moved, moved.new_tensor([0.0, 0.0, 1.0, 1.0]))
    kept = nms(moved, torch.where(valid, scores, LOWEST), iou_threshold)
    count = valid[kept].sum()
    kept = torch.cat([kept, kept.new_zeros(k)])[:k]
    taken = torch.arange(k, device=kept.device) < count
    return torch.where(taken, kept, 0), taken


def selected(boxes: Tensor, scores: Tensor, classes: Tensor, kept: Tensor, valid: Tensor) -> Selection:
    """Boxes, scores and classes at the positions that `class_offset_nms` keeps."""
    return Selection(
        torch.where(valid[:, None], boxes[kept], 0.0),
        torch.where(valid, scores[kept], 0.0),
        torch.where(valid, classes[kept], 0),
        valid,
    )


def clipped(boxes: Tensor, image_size: Tensor) -> Tensor:
    """Boxes [..., 4] cut to an image of size [2], (h, w), float32."""
    limits = torch.stack([image_size[1], image_size[0], image_size[1], image_size[0]])
    return torch.minimum(boxes.clamp(min=0), limits)
