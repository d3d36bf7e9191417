"""Mask targets: ground-truth masks cropped and resized to the RoIs (RoIAlign), and the target of each map.

Letters: N RoIs, G instances, L layers, h x w window of a mask, M mask side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from bcnet.maps import BOUNDARY, MapSpec
from bcnet.ops import axis_weights
from bcnet.structures import InstanceMasks, unknown_layer

# Tolerance below 1/2 for the rounding of averages in either precision.
HALF_FLOAT64 = 0.5 - 1e-9
HALF_FLOAT32 = 0.5 - 1e-5
_OUTSIDE = -1e5  # pixels: left of and above every window by more than RoIAlign reaches


class MapTarget(NamedTuple):
    """The target of one layer or map, for N RoIs.

    Attributes:
        values: bool [N, M, M] (float for a map with its own `MapSpec.derive`).
        known: bool [N, M, M], False where the target is unknown; None where all of it is known.
    """

    values: Tensor
    known: Tensor | None = None


def crop_layers(masks: InstanceMasks, boxes: Tensor, instances: Tensor, side: int) -> dict[str, MapTarget]:
    """Crops every layer of the masks to the RoIs and resizes it: detectron2's ``BitMasks.crop_and_resize``.

    Aligned RoIAlign with sampling ratio 0, then >= 1/2. Averages of exactly one half count as mask on every device. A
    pixel is unknown if the unknown part of its average could change the result.

    Args:
        masks: of G instances.
        boxes: float32 [N, 4], RoIs, xyxy in absolute pixels of the image.
        instances: int64 [N], the matched instance of each RoI.
        side: M.

    Returns:
        dict: by layer, without the layers of `unknown_layer`; empty for masks without layers.
    """
    if not masks.layers:  # of a detector without masks: windows without pixels, which nothing can be pooled from
        return {}
    crop = _crop_by_matrices if boxes.device.type == "cpu" else _crop_by_roi_align
    averages, half = crop(masks, boxes, instances, side)
    by_layer = dict(zip(masks.layers, averages.unbind(dim=1), strict=True))
    targets = {}
    for name, average in by_layer.items():
        if (unknown := by_layer.get(unknown_layer(name))) is not None:
            values = average >= half
            targets[name] = MapTarget(values, known=values | (average + unknown < half))
        elif name not in map(unknown_layer, by_layer):
            targets[name] = MapTarget(average >= half)
    return targets


def _crop_by_matrices(masks: InstanceMasks, boxes: Tensor, instances: Tensor, side: int) -> tuple[Tensor, float]:
    """RoIAlign of each instance's window, float64 [N, L, M, M], that reads only the pixels of the RoIs.

    In float64, to distinguish averages of exactly one half, frequent for boxes of whole pixels, from smaller ones.
    """
    windows = torch.from_numpy(masks.windows)[instances]
    borders = boxes.double() - windows[:, :2].repeat(1, 2) - 0.5
    rows = axis_weights(borders[:, 1], borders[:, 3], windows[:, 3], side)
    columns = axis_weights(borders[:, 0], borders[:, 2], windows[:, 2], side)
    cropped = torch.zeros(len(boxes), len(masks.layers), side, side, dtype=torch.float64)
    spans = zip(instances.tolist(), *rows.spans(), *columns.spans(), strict=True)
    with torch.autocast("cpu", enabled=False):
        for out, (i, y, h, x, w), by_row, by_column in zip(cropped, spans, rows.weights, columns.weights, strict=True):
            if h and w:
                window = masks.window(i)[:, y : y + h, x : x + w].double()
                torch.matmul(by_row[:, :h] @ window, by_column[:, :w].T, out=out)
    return cropped, HALF_FLOAT64


def _crop_by_roi_align(masks: InstanceMasks, boxes: Tensor, instances: Tensor, side: int) -> tuple[Tensor, float]:
    """torchvision's RoIAlign of the padded windows, float32 [N, L, M, M], without host-device synchronisation.

    Always in float32: in half precision the comparison with 1/2 would move the mask's edge. Every group of windows is
    pooled with all RoIs; those of other groups are moved outside as points, where RoIAlign gives exact zeros.
    """
    x, y, group, position = masks.places[instances].unbind(dim=1)
    in_window = boxes.float() - torch.stack([x, y, x, y], dim=1)
    cropped = in_window.new_zeros(len(boxes), len(masks.layers), side, side)
    for number, padded in enumerate(masks.padded_groups()):
        own = group == number
        rois = torch.where(own[:, None], in_window, _OUTSIDE)
        rois = torch.cat([torch.where(own, position, 0)[:, None].float(), rois], dim=1)
        cropped = cropped + roi_align(padded.float(), rois, side, spatial_scale=1.0, sampling_ratio=0, aligned=True)
    return cropped, HALF_FLOAT32


def join_crops(crops: Sequence[Mapping[str, MapTarget]]) -> dict[str, MapTarget]:
    """Concatenates the crops of several images to those of one batch of RoIs, in order."""
    return {name: _join([crop[name] for crop in crops]) for name in crops[0]}


def _join(targets: Sequence[MapTarget]) -> MapTarget:
    values = torch.cat([target.values for target in targets])
    if all(target.known is None for target in targets):
        return MapTarget(values)
    known = [torch.ones_like(t.values, dtype=torch.bool) if t.known is None else t.known for t in targets]
    return MapTarget(values, torch.cat(known))


def map_targets(maps: Sequence[MapSpec], layers: Mapping[str, MapTarget]) -> dict[str, MapTarget]:
    """The target of each map, by its name.

    A boundary is unknown where a pixel of the 3x3 cross around it is.

    Args:
        maps: the head's records.
        layers: crops by layer, see `crop_layers`.

    Raises:
        ValueError: a map's target layer is not among the layers.
    """
    targets = {}
    for spec in maps:
        if spec.target not in layers:
            raise ValueError(
                f"map {spec.name!r} needs the mask layer {spec.target!r}; the targets have: {', '.join(layers)}"
            )
        values, known = layers[spec.target]
        if spec.derive is not None:
            values = spec.derive(values)
        elif spec.kind == BOUNDARY:
            values = mask_boundary(values)
            known = None if known is None else ~_any_in_cross(~known[:, None])[:, 0]
        targets[spec.name] = MapTarget(values, known)
    return targets


def mask_boundary(masks: Tensor) -> Tensor:
    """The boundary of masks: dilation differs from erosion, both with the 3x3 cross; two pixels wide.

    Padding is background for the dilation and foreground for the erosion, so a mask that fills its crop has no
    boundary. Equal to scikit-image's binary_dilation and binary_erosion, which the published code calls, batched.

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
