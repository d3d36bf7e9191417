"""FCOS losses: focal loss, GIoU loss and centerness loss.

Letters: B images, P points, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from bcnet.distributed import loss_normalizer
from bcnet.fcos.head import FCOSOutput
from bcnet.fcos.targets import FCOSTargets


def fcos_losses(
    output: FCOSOutput,
    targets: FCOSTargets,
    *,
    focal_alpha: float,
    focal_gamma: float,
    box_weight: float,
) -> dict[str, Tensor]:
    """Focal, GIoU and centerness loss, as BCNet's published code weighs and normalises them.

    The focal and the centerness loss are divided by the number of positive points, the box loss is weighted
    by the centerness target and divided by its sum. Both normalisers are averaged over processes; without a
    positive point the box and the centerness loss are zero. Causes no host-device synchronisation.

    Returns:
        dict: "loss_cls", "loss_box_reg", "loss_centerness", scalars.
    """
    num_classes = output.logits.shape[2]
    positive = targets.classes < num_classes
    centerness = torch.where(positive, centerness_target(targets.distances), 0.0)
    positives, centerness_sum = loss_normalizer(torch.stack([positive.sum().float(), centerness.sum()]))
    positives = positives.clamp(min=1)

    one_hot = F.one_hot(targets.classes, num_classes + 1)[..., :num_classes].to(output.logits.dtype)
    loss_cls = sigmoid_focal_loss(output.logits, one_hot, alpha=focal_alpha, gamma=focal_gamma, reduction="sum")
    loss_box = (giou_loss(output.distances, targets.distances) * centerness).sum()
    loss_centerness = F.binary_cross_entropy_with_logits(output.centerness, centerness, reduction="none")
    return {
        "loss_cls": loss_cls / positives,
        # The sum is positive as soon as there is one positive point, whose distances are all positive.
        "loss_box_reg": box_weight * loss_box / torch.where(centerness_sum > 0, centerness_sum, 1.0),
        "loss_centerness": (loss_centerness * positive).sum() / positives,
    }


def centerness_target(distances: Tensor) -> Tensor:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)): FCOS, equation 3.

    Args:
        distances: float [..., 4], left, top, right, bottom, all positive.
    """
    horizontal, vertical = distances[..., 0::2], distances[..., 1::2]
    return torch.sqrt(
        (horizontal.amin(dim=-1) / horizontal.amax(dim=-1)) * (vertical.amin(dim=-1) / vertical.amax(dim=-1))
    )


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU of boxes around one point, with IoU = (I + 1) / (U + 1) as in the published code.

    Args:
        predicted, target: float [..., 4], distances left, top, right, bottom, >= 0 (here in strides).

    Returns:
        Tensor: float [...].
    """
    inner, outer = torch.minimum(predicted, target), torch.maximum(predicted, target)
    intersection, hull = _area(inner), _area(outer) + 1e-7
    union = _area(predicted) + _area(target) - intersection
    giou = (intersection + 1) / (union + 1) - (hull - union) / hull
    return 1 - giou


def _area(distances: Tensor) -> Tensor:
    left, top, right, bottom = distances.unbind(dim=-1)
    return (left + right) * (top + bottom)
