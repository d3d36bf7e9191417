"""RoIAlign over the levels of a feature pyramid.

Letters: B images, N RoIs, C channels, H_l x W_l feature map of a level, S pooled side, h x w window of a RoI.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align

_OUTSIDE = -1e5  # pixels: left of and above every feature map by more than RoIAlign reaches


def pyramid_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    side: int,
    *,
    strides: Sequence[int],
    sampling_ratio: int = 0,
) -> Tensor:
    """torchvision's ``roi_align(..., aligned=True)``, of each RoI on its level.

    On the CPU it is computed as matrix products, several times faster; elsewhere, and under torch.export and
    torch.compile, by torchvision's kernel, without host-device synchronisation. For RoIs inside the map both are equal
    up to the rounding of sums; for a RoI that extends beyond it, a sample exactly one pixel outside may count in one
    and not in the other. Computed in float32 at least: half-precision coordinates would move RoIs by whole pixels.
    Every level stays in the graph, as DDP requires.

    Args:
        features: per level, float [B, C, H_l, W_l]; all of one dtype and device.
        rois: float32 [N, 5], image index and xyxy in absolute pixels, finite, x1 >= x0 and y1 >= y0; N may be 0.
        levels: int64 [N], index of each RoI's level.
        side: S.
        strides: of the levels in pixels.
        sampling_ratio: samples per bin side; 0 adapts to the RoI's size.

    Returns:
        Tensor: of the features' dtype, [N, C, S, S].
    """
    dtype = features[0].dtype
    features = [feature.to(torch.promote_types(dtype, torch.float32)) for feature in features]
    if rois.device.type == "cpu" and not torch.compiler.is_compiling():
        pooled = _MatrixRoIAlign.apply(rois, levels, side, tuple(strides), sampling_ratio, *features)
    else:
        pooled = level_by_level(features, rois, levels, side, strides, sampling_ratio)
    return pooled.to(dtype)


def level_by_level(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    side: int,
    strides: Sequence[int],
    sampling_ratio: int,
) -> Tensor:
    """`pyramid_roi_align` by torchvision's kernel, all RoIs on every level.

    RoIs of other levels are moved outside the map as points, where RoIAlign gives exact zeros at hardly any cost, so
    that the sum over the levels is each RoI's own. Selecting the RoIs of a level would synchronise host and device.
    Under torch.export they are one feature pixel wide: of a point OpenVINO's RoIAlign makes NaN, a mean of no samples.
    """
    rois = rois.to(features[0].dtype)
    exporting = torch.compiler.is_compiling()

    def pool(level: int, feature: Tensor, stride: int) -> Tensor:
        end = _OUTSIDE + stride * exporting
        outside = rois.new_tensor([_OUTSIDE, _OUTSIDE, end, end]) if exporting else _OUTSIDE
        own = torch.where((levels == level)[:, None], rois[:, 1:], outside)
        return roi_align(feature, torch.cat([rois[:, :1], own], dim=1), side, 1 / stride, sampling_ratio, aligned=True)

    # Added up one by one: the levels' results never lie in memory together.
    return functools.reduce(torch.add, map(pool, range(len(features)), features, strides))


class _MatrixRoIAlign(torch.autograd.Function):
    """RoIAlign as two small matrix products per RoI.

    It averages bilinear samples on a grid, and both are separable: a pooled row is a weighted sum of feature rows,
    a pooled column one of feature columns. torchvision's CPU kernel gathers samples one by one, and scatters them in
    the backward pass, on one thread.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, rois, levels, side, strides, sampling_ratio, *features):
        sizes = torch.tensor([feature.shape[-2:] for feature in features])[levels]
        borders = rois[:, 1:] / rois.new_tensor(strides)[levels][:, None] - 0.5
        rows = axis_weights(borders[:, 1], borders[:, 3], sizes[:, 0], side, sampling_ratio)
        columns = axis_weights(borders[:, 0], borders[:, 2], sizes[:, 1], side, sampling_ratio)
        ctx.windows = list(
            zip(levels.tolist(), rois[:, 0].long().tolist(), *rows.spans(), *columns.spans(), strict=True)
        )
        ctx.weights = rows.weights.to(features[0].dtype), columns.weights.to(features[0].dtype)
        ctx.shapes = [feature.shape for feature in features]
        maps = [feature.permute(0, 2, 3, 1).contiguous() for feature in features]
        channels = features[0].shape[1]
        pooled = maps[0].new_zeros(len(rois), side, side, channels)
        for out, (level, b, y, h, x, w), by_row, by_column in zip(pooled, ctx.windows, *ctx.weights, strict=True):
            if h and w:
                window = maps[level][b, y : y + h, x : x + w].reshape(h, w * channels)
                partial = torch.matmul(by_row[:, :h], window).view(side, w, channels)
                torch.matmul(by_column[:, :w], partial, out=out)
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, gradient):
        gradient = gradient.permute(0, 2, 3, 1).contiguous()
        side, channels = gradient.shape[1], gradient.shape[3]
        maps = [gradient.new_zeros(batch, height, width, channels) for batch, _, height, width in ctx.shapes]
        for out, (level, b, y, h, x, w), by_row, by_column in zip(gradient, ctx.windows, *ctx.weights, strict=True):
            if h and w:
                partial = torch.matmul(by_column[:, :w].T, out).view(side, w * channels)
                window = torch.matmul(by_row[:, :h].T, partial).view(h, w, channels)
                maps[level][b, y : y + h, x : x + w] += window
        return None, None, None, None, None, *(m.permute(0, 3, 1, 2) for m in maps)


class AxisWeights(NamedTuple):
    """Interpolation weights from feature rows (or columns) to pooled rows (or columns).

    Attributes:
        weights: float [N, S, h], of the h feature rows from `starts` on; zero beyond the RoI's own.
        starts: int64 [N], first feature row.
        sizes: int64 [N], number of feature rows of each RoI; 0 where all samples lie outside the feature map.
    """

    weights: Tensor
    starts: Tensor
    sizes: Tensor

    def spans(self) -> tuple[list[int], list[int]]:
        return self.starts.tolist(), self.sizes.tolist()


def axis_weights(low: Tensor, high: Tensor, lengths: Tensor, side: int, sampling_ratio: int = 0) -> AxisWeights:
    """The interpolation weights of one axis.

    Args:
        low, high: float [N], the RoIs' borders in feature pixels, half a pixel subtracted (``aligned=True``).
        lengths: int64 [N], of the feature map that each RoI is pooled from.
        side: S.
        sampling_ratio: samples per bin; 0 takes ceil(size / S), none of a RoI without size.
    """
    if len(low) == 0:
        none = lengths.new_zeros(0)
        return AxisWeights(low.new_zeros(0, side, 1), none, none)
    bins = (high - low) / side
    counts = torch.full_like(bins, sampling_ratio) if sampling_ratio > 0 else torch.ceil(bins).clamp(min=0)
    divisor = counts.clamp(min=1)[:, None, None]
    sample = torch.arange(max(int(counts.max()), 1))
    bin_index = torch.arange(side)[:, None]
    position = low[:, None, None] + (bin_index + (sample + 0.5) / divisor) * bins[:, None, None]  # [N, S, samples]
    lengths = lengths[:, None, None]
    # A sample within a pixel of the map counts as on its edge, one beyond is zero.
    exists = (sample < counts[:, None, None]) & (position >= -1) & (position <= lengths)
    position = torch.minimum(position.clamp(min=0), lengths - 1)
    before = position.floor()
    share = position - before
    before = before.to(torch.int64)
    after = torch.minimum(before + 1, lengths - 1)
    starts = torch.where(exists, before, lengths).amin(dim=(1, 2))
    sizes = (torch.where(exists, after, -1).amax(dim=(1, 2)) + 1 - starts).clamp(min=0)
    weights = low.new_zeros(len(low), side, max(int(sizes.max()), 1))
    for index, part in ((before, 1 - share), (after, share)):
        weights.scatter_add_(2, torch.where(exists, index - starts[:, None, None], 0), exists * part / divisor)
    return AxisWeights(weights, starts, sizes)
