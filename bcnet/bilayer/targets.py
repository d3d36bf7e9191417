"""Training targets of a mask head: both layers' masks in the RoI frame, and their boundaries.

Letters: N RoIs, G instances, h x w window of a mask, M mask side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from bcnet.ops import axis_weights

ROUNDING = 1e-9  # of averages in float64, with room to spare


class MaskTargets(NamedTuple):
    """Targets of N RoIs, bool [N, M, M] each."""

    occludee_mask: Tensor
    occludee_boundary: Tensor
    occluder_mask: Tensor
    occluder_boundary: Tensor


def crop_layers(bitmaps: Tensor, origins: Tensor, boxes: Tensor, instances: Tensor, side: int) -> Tensor:
    """Crops both layers' masks to the RoIs and resizes them: detectron2's ``BitMasks.crop_and_resize``.

    Aligned RoIAlign with sampling ratio 0, then >= 1/2.

    Args:
        bitmaps: uint8 [G, 2, h, w], windows of the occludee and occluder masks (see `InstanceMasks`).
        origins: int64 [G, 2], image coordinates (x, y) of each window.
        boxes: float32 [N, 4], RoIs, xyxy in absolute pixels of the image.
        instances: int64 [N], the matched instance of each RoI.
        side: M.

    Returns:
        Tensor: bool [2, N, M, M], occludee first.
    """
    if len(boxes) == 0:
        return torch.zeros(2, 0, side, side, dtype=torch.bool, device=boxes.device)
    origin = origins[instances].to(boxes.dtype)
    in_window = boxes - torch.cat([origin, origin], dim=1)
    if boxes.device.type == "cpu":
        return (_crop_by_matrices(bitmaps, in_window, instances, side) >= 0.5 - ROUNDING).transpose(0, 1)
    # Always fp32: in half precision the comparison with 1/2 would move the mask's edge.
    rois = torch.cat([instances[:, None].float(), in_window.float()], dim=1)
    cropped = roi_align(bitmaps.float(), rois, side, spatial_scale=1.0, sampling_ratio=0, aligned=True)
    return (cropped >= 0.5).transpose(0, 1)


def _crop_by_matrices(bitmaps: Tensor, boxes: Tensor, instances: Tensor, side: int) -> Tensor:
    """RoIAlign of each instance's window, float64 [N, 2, M, M], that reads only the pixels of the RoIs.

    In float64: averages of exactly one half, which boxes of whole pixels often have, are told from smaller ones.
    """
    height, width = bitmaps.shape[-2:]
    borders = boxes.double() - 0.5
    sizes = torch.full_like(instances, height), torch.full_like(instances, width)
    rows = axis_weights(borders[:, 1], borders[:, 3], sizes[0], side)
    columns = axis_weights(borders[:, 0], borders[:, 2], sizes[1], side)
    cropped = torch.zeros(len(boxes), 2, side, side, dtype=torch.float64)
    spans = zip(instances.tolist(), *rows.spans(), *columns.spans(), strict=True)
    with torch.autocast("cpu", enabled=False):
        for out, (i, y, h, x, w), by_row, by_column in zip(cropped, spans, rows.weights, columns.weights, strict=True):
            window = bitmaps[i, :, y : y + h, x : x + w].double()
            torch.matmul(by_row[:, :h] @ window, by_column[:, :w].T, out=out)
    return cropped


def mask_boundary(masks: Tensor) -> Tensor:
    """The boundary of masks: dilation differs from erosion, both with the 3x3 cross; two pixels wide.

    Outside the crop counts as background for the dilation and as foreground for the erosion, so a mask that
    fills its crop has no boundary: scikit-image's binary_dilation and binary_erosion, as the published code
    calls them, for all masks at once.

    Args:
        masks: bool [..., M, M].

    Returns:
        Tensor: bool [..., M, M].
    """
    shape = masks.shape
    masks = masks.reshape(-1, 1, *shape[-2:])
    return (_any_in_cross(masks) != ~_any_in_cross(~masks)).reshape(shape)


def _any_in_cross(masks: Tensor) -> Tensor:
    """Dilation with the 3x3 cross; outside is False."""
    padded = F.pad(masks, (1, 1, 1, 1), value=False)
    vertical = padded[..., :-2, 1:-1] | padded[..., 2:, 1:-1]
    horizontal = padded[..., 1:-1, :-2] | padded[..., 1:-1, 2:]
    return masks | vertical | horizontal


def mask_targets(layers: Tensor) -> MaskTargets:
    """Adds the boundaries.

    Args:
        layers: bool [2, N, M, M] of `crop_layers`.
    """
    occludee_boundary, occluder_boundary = mask_boundary(layers)
    return MaskTargets(layers[0], occludee_boundary, layers[1], occluder_boundary)
