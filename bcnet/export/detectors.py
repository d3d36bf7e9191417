"""Box detection of each detector with static shapes, equal to its `detect`.

Letters: N candidates, K classes, P proposals, R anchors of a level, k selected.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from bcnet.export.fixed import Selection, class_offset_nms, clipped, fixed_topk, selected
from bcnet.modeling import Detector
from bcnet.modeling.faster_rcnn import FasterRCNN
from bcnet.modeling.fcos import FCOS

# Maximum number of candidates (box and class) of Faster R-CNN before NMS. Eager has no such limit; TensorRT's top-k
# takes at most 3840.
MAX_CANDIDATES = 3000
NO_LIMIT = 1000  # maximum number of detections of a model that has no limit itself


@functools.singledispatch
def select_boxes(model: Detector, features: Mapping[str, Tensor], image_size: Tensor) -> Selection:
    """The detections of one image, padded to `fixed_detections` of the model.

    Args:
        model: in eval mode.
        features: of the backbone, one image.
        image_size: float32 [2], (h, w) before padding.

    Raises:
        TypeError: a detector of another class.
    """
    raise TypeError(
        f"{type(model).__name__} cannot be exported: export knows GeneralizedRCNN, BCNetFCOS and BoxPrompted; register "
        "its selection of boxes with bcnet.export.detectors.select_boxes.register"
    )


def fixed_detections(model: Detector) -> int:
    """Number of detections that `select_boxes` pads to."""
    return model.max_detections or NO_LIMIT


@select_boxes.register
def _(model: FCOS, features: Mapping[str, Tensor], image_size: Tensor) -> Selection:
    output, points = model.predict_points(features)
    settings = model.detection.decoding
    sizes = [p.shape[0] for p in points]  # not `len`, which torch.export would fix
    levels = []
    for logits, distances, centerness, level_points, stride in zip(
        output.logits[0].split(sizes),
        output.distances[0].split(sizes),
        output.centerness[0].split(sizes),
        points,
        model.detection.strides,
        strict=True,
    ):
        probability = logits.sigmoid()
        product = probability * centerness.sigmoid()[:, None]
        candidate = probability > settings["score_threshold"]
        product, index, valid = fixed_topk(product.flatten(), candidate.flatten(), settings["topk"])
        point, label = index // model.num_classes, index % model.num_classes
        offset = distances[point] * stride
        boxes = torch.cat([level_points[point] - offset[:, :2], level_points[point] + offset[:, 2:]], dim=1)
        levels.append((boxes, product.clamp(min=0).sqrt(), label, valid))
    boxes, scores, classes, valid = (torch.cat(parts) for parts in zip(*levels, strict=True))
    found = class_offset_nms(boxes, scores, classes, valid, model.nms_threshold, fixed_detections(model))
    return selected(clipped(boxes, image_size), scores, classes, *found)


@select_boxes.register
def _(model: FasterRCNN, features: Mapping[str, Tensor], image_size: Tensor) -> Selection:
    proposals, proposed = _proposals(model, features, image_size)
    branch = model.box_branch
    logits, deltas = branch.head(branch.pooler([features[name] for name in model.mask_features], [proposals]))
    decoded = branch.box_coder.decode_single(deltas, proposals)
    boxes = clipped(decoded.unflatten(1, (-1, 4)), image_size)
    scores = logits.softmax(dim=1)[:, :-1]
    candidate = (scores > branch.score_threshold) & proposed[:, None]
    scores, index, valid = fixed_topk(scores.flatten(), candidate.flatten(), MAX_CANDIDATES)
    proposal, label = index // model.num_classes, index % model.num_classes
    boxes = boxes[proposal, label if boxes.shape[1] > 1 else torch.zeros_like(label)]
    found = class_offset_nms(boxes, scores, label, valid, branch.nms_threshold, fixed_detections(model))
    return selected(boxes, scores, label, *found)


def _proposals(model: FasterRCNN, features: Mapping[str, Tensor], image_size: Tensor) -> tuple[Tensor, Tensor]:
    """Proposals of the RPN, float32 [P, 4], and which of them are valid, bool [P]; P is fixed."""
    rpn = model.rpn
    levels = [features[name] for name in model.rpn_features]
    parts = []
    for index, (anchors, logits, deltas) in enumerate(
        zip(rpn.anchor_generator(levels), *rpn.head(levels), strict=True)
    ):
        logits = logits.float().permute(0, 2, 3, 1).flatten()  # [R]
        best, order, valid = fixed_topk(logits, torch.ones_like(logits, dtype=torch.bool), rpn.pre_nms_topk[1])
        per_anchor = deltas[0].float().unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
        boxes = clipped(rpn.box_coder.decode_single(per_anchor[order], anchors[order]), image_size)
        valid = valid & ((boxes[:, 2:] - boxes[:, :2]) > rpn.min_size).all(dim=1)
        parts.append((boxes, best, torch.full_like(order, index), valid))
    boxes, scores, level, valid = (torch.cat(part) for part in zip(*parts, strict=True))
    kept, taken = class_offset_nms(boxes, scores, level, valid, rpn.nms_threshold, rpn.post_nms_topk[1])
    return torch.where(taken[:, None], boxes[kept], 0.0), taken
