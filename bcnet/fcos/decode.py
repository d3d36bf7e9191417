"""FCOS decoding: from predictions at points to boxes, scores and classes after NMS.

Letters: P_l points of a level, K classes, D detections.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from bcnet.fcos.head import FCOSOutput


@torch.no_grad()
def decode_detections(
    output: FCOSOutput,
    points: Sequence[Tensor],
    strides: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    *,
    score_threshold: float,
    topk: int,
    nms_threshold: float,
    max_detections: int | None,
    min_score: float = 0.0,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes, scores and classes of each image, by descending score.

    A class of a point is a candidate if its probability *before* centerness exceeds the threshold. The `topk`
    of each level by probability times centerness are kept; the score is the square root of that product.
    Scores below `min_score` are dropped. NMS is per class, on boxes as predicted; what is kept is clipped to
    the image.

    Args:
        image_sizes: (height, width) of each image before padding.
        score_threshold: class probability, 0..1, that a candidate exceeds.
        topk: maximum number of candidates per level.
        nms_threshold: IoU of two boxes of one class above which the one with the lower score is dropped.
        max_detections: maximum number of detections per image; None is no limit.
        min_score: lowest score, 0..1.

    Returns:
        Per image boxes float32 [D, 4] (xyxy in absolute pixels), scores float32 [D] and classes int64 [D].
    """
    sizes = [p.shape[0] for p in points]
    detections = []
    for image, image_size in enumerate(image_sizes):
        candidates = [
            _decode_level(*level, score_threshold, topk, min_score)
            for level in zip(
                output.logits[image].split(sizes),
                output.distances[image].split(sizes),
                output.centerness[image].split(sizes),
                points,
                strides,
                strict=True,
            )
        ]
        boxes, scores, classes = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        kept = batched_nms(boxes, scores, classes, nms_threshold)[:max_detections]
        detections.append((_clipped(boxes[kept], image_size), scores[kept], classes[kept]))
    return detections


def _decode_level(
    logits: Tensor,
    distances: Tensor,
    centerness: Tensor,
    points: Tensor,
    stride: int,
    score_threshold: float,
    topk: int,
    min_score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    probability = logits.sigmoid()
    point, label = torch.nonzero(probability > score_threshold, as_tuple=True)
    product = probability[point, label] * centerness.sigmoid()[point]
    count = product.shape[0]
    if isinstance(count, Tensor) or count > topk:  # in a trace, where no branch can depend on it, it is a tensor
        kept = torch.clamp(count, max=topk) if isinstance(count, Tensor) else topk
        product, best = product.topk(kept, sorted=False)  # pyright: ignore[reportArgumentType]
        point, label = point[best], label[best]
    offset = distances[point] * stride
    boxes = torch.cat([points[point] - offset[:, :2], points[point] + offset[:, 2:]], dim=1)
    scores = product.sqrt()
    if min_score > 0:
        high = scores >= min_score
        return boxes[high], scores[high], label[high]
    return boxes, scores, label


def _clipped(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes [D, 4] cut to the image; its height and width may be tensors, in a trace."""
    height, width = image_size
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack([x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], dim=1)
