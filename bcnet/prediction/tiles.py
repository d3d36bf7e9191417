"""Prediction on tiles of a large image: windows that overlap, and one detection of what several of them show.

What is cut by the border between tiles is put together by the part that two tiles share: there both show the same
pixels of an object, however little of the whole that is. (The slicers of sahi and supervision compare whole pieces,
which overlap in the shared strip alone: at their default thresholds an object of several tiles stays in pieces, and at
lower ones neighbours that overlap are joined.)

Letters: D detections, P pieces of one object, M mask side, H x W image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from bcnet.data import ImageSource
from bcnet.data.image_source import source_image
from bcnet.data.image_windows import ImageWindows
from bcnet.occlusion import with_relations
from bcnet.ops.boxes import scaled_boxes
from bcnet.ops.paste import Window, paste_windows
from bcnet.structures import Detections

if TYPE_CHECKING:
    from bcnet.export.runtime import ExportedPredictor
    from bcnet.prediction.predictor import Predictor

SAME = 0.5  # IoU of two masks in the part that both tiles show, from which they are of one object
FINEST = 4  # at most so many times the side of the head's maps: those of an object of several tiles are put together


def tile_windows(image_size: tuple[int, int], tile: int, overlap: float) -> list[Window]:
    """The tiles of an image of (H, W), row by row: they overlap by at least a share of their side, and lie inside.

    Raises:
        ValueError: a tile of no pixel, or an overlap that is not in 0..1 (1 excluded).
    """
    if tile < 1 or not 0 <= overlap < 1:
        raise ValueError(f"tiles need a side of at least 1 pixel and an overlap in 0..1, got {tile} and {overlap}")
    starts = []
    for side in image_size:
        count = 1 if side <= tile else 1 + math.ceil((side - tile) / max(tile * (1 - overlap), 1))
        starts.append([round(i * (side - tile) / (count - 1)) if count > 1 else 0 for i in range(count)])
    height, width = image_size
    return [Window(x, y, min(x + tile, width), min(y + tile, height)) for y in starts[0] for x in starts[1]]


def predict_on_tiles(
    model: Predictor | ExportedPredictor,
    image: ImageSource,
    format: str = "BGR",
    *,
    tile: int,
    overlap: float,
    max_detections: int | None = None,
    batch_size: int = 4,
    **options: Any,
) -> Detections:
    """`Predictor.predict_tiled`, of a model whose results are `Detections`."""
    found: list[tuple[Window, Detections]] = []
    with ImageWindows(image, format, max_pixels=model.max_image_pixels) as windows:
        tiles = tile_windows(windows.size, tile, overlap)
        for first in range(0, len(tiles), batch_size):
            batch = tiles[first : first + batch_size]
            pixels = [windows.read(*window) for window in batch]
            results = model.predict(pixels, "RGB", max_detections=max_detections, batch_size=batch_size, **options)
            # Without the source, which would keep the pixels of all tiles.
            found += zip(batch, (replace(result, source=None) for result in results), strict=True)
    source = source_image(image, format, model.max_image_pixels)
    return replace(merge_tiles(found, windows.size, max_detections), source=source)


def merge_tiles(
    tiles: Sequence[tuple[Window, Detections]], image_size: tuple[int, int], max_detections: int | None = None
) -> Detections:
    """The detections of an image from those of its tiles.

    Detections of one class in two tiles are the same object if their masks agree (`SAME`) in the part that both tiles
    show; without masks, their boxes. An object's box is around its pieces, its score the highest of theirs, and each
    point of its maps is of the tile in which it lies farthest from the tile's border. Where objects span several tiles,
    all maps are finer than the head's, up to `FINEST` times. The occlusion relations are computed from the merged
    detections.

    Args:
        tiles: at least one window with its detections, in the pixels of the window.
        image_size: (H, W).
        max_detections: the best so many are kept; None keeps all.

    Returns:
        Detections: of the image, by descending score.
    """
    windows = [window for window, _ in tiles]
    found = _joined(tiles, image_size)
    tile_of = [number for number, (_, detections) in enumerate(tiles) for _ in range(len(detections))]
    groups = _same_objects(found, windows, tile_of)
    boxes = torch.stack([_around(found.boxes[group]) for group in groups]) if groups else found.boxes
    firsts = [group[int(found.scores[group].argmax())] for group in groups]
    merged = replace(found, maps={}, occluded_by=None)[firsts]
    merged.boxes = boxes
    if found.maps:
        side = next(iter(found.maps.values())).shape[-1] * _fineness(found, groups, boxes)
        rois = scaled_boxes(boxes, found.roi_scale)
        maps = {name: torch.zeros(len(groups), side, side) for name in found.maps}
        for position, group in enumerate(groups):
            pieces = found[group]
            depths = [_depth(rois[position], side, windows[tile_of[index]], image_size) for index in group]
            for name, values in _sampled(pieces, rois[position], side, torch.stack(depths)).items():
                maps[name][position] = values
        merged = replace(merged, maps=maps)
    order = merged.scores.argsort(descending=True, stable=True)[:max_detections]
    return with_relations(merged[order])


def _joined(tiles: Sequence[tuple[Window, Detections]], image_size: tuple[int, int]) -> Detections:
    """The detections of all tiles in pixels of the image."""
    first = tiles[0][1]
    boxes = [
        detections.boxes.cpu() + detections.boxes.new_tensor([window.x0, window.y0] * 2).cpu()
        for window, detections in tiles
    ]
    return replace(
        first,
        image_size=image_size,
        boxes=torch.cat(boxes),
        scores=torch.cat([detections.scores.cpu() for _, detections in tiles]),
        classes=torch.cat([detections.classes.cpu() for _, detections in tiles]),
        maps={name: torch.cat([detections.maps[name].cpu().float() for _, detections in tiles]) for name in first.maps},
        occluded_by=None,
        source=None,
    )


def _same_objects(found: Detections, windows: Sequence[Window], tile_of: Sequence[int]) -> list[list[int]]:
    """Positions of the detections of each object, at most one of a tile; the pairs that agree most are joined first."""
    agreements = []
    of_tile = [[i for i, tile in enumerate(tile_of) if tile == number] for number in range(len(windows))]
    for first, second in itertools.combinations(range(len(windows)), 2):
        shared = _intersection(windows[first], windows[second])
        if shared is not None and of_tile[first] and of_tile[second]:
            agreements += _agreements(found, of_tile[first], of_tile[second], shared)
    group_of = {index: [index] for index in range(len(found))}
    for _, i, j in sorted(agreements, key=lambda pair: (-pair[0], pair[1], pair[2])):
        one, other = group_of[i], group_of[j]
        if not {tile_of[k] for k in one} & {tile_of[k] for k in other}:
            one += other
            group_of |= dict.fromkeys(other, one)
    return list({id(group): sorted(group) for group in group_of.values()}.values())


def _agreements(found: Detections, first: list[int], second: list[int], shared: Window) -> list[tuple[float, int, int]]:
    """The pairs of detections of two tiles that agree in the part of both, with their IoU there."""
    offset = torch.tensor([shared.x0, shared.y0] * 2)
    size = (shared.y1 - shared.y0, shared.x1 - shared.x0)
    limits = torch.tensor([size[1], size[0]] * 2)
    inside = torch.minimum((found.boxes - offset).clamp(min=0), limits)
    some = ((inside[:, 2:] - inside[:, :2]) > 0).all(dim=1)
    meet = (box_iou(inside[first], inside[second]) > 0) & some[first][:, None] & some[second]
    meet &= found.classes[first][:, None] == found.classes[second]
    pairs = [(first[row], second[column]) for row, column in meet.nonzero().tolist()]
    agreeing = []
    for i, j in pairs:
        masks = [_mask(found, index, inside[index], offset, size) for index in (i, j)]
        union = int((masks[0] | masks[1]).sum())
        overlap = int((masks[0] & masks[1]).sum()) / union if union else 0.0
        if overlap >= SAME:
            agreeing.append((overlap, i, j))
    return agreeing


def _mask(found: Detections, index: int, box: Tensor, offset: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask of a detection, or else its box, in a window of the image: bool [h, w]."""
    pasted = torch.zeros(size, dtype=torch.bool)
    if found.occludee_mask is None:
        x0, y0, x1, y1 = (round(value) for value in box.tolist())
        pasted[y0:y1, x0:x1] = True
        return pasted
    rois = found.map_boxes[index : index + 1] - offset
    ((window, values),) = paste_windows(found.occludee_mask[index : index + 1], rois, size)
    pasted[window.y0 : window.y1, window.x0 : window.x1] = values >= found.mask_threshold
    return pasted


def _intersection(first: Window, second: Window) -> Window | None:
    x0, y0, x1, y1 = (*map(max, first[:2], second[:2]), *map(min, first[2:], second[2:]))
    return Window(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _around(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)])


def _fineness(found: Detections, groups: Sequence[list[int]], boxes: Tensor) -> int:
    """How many times finer than the head's the maps of merged objects must be."""
    factor = 1.0
    for group, box in zip(groups, boxes, strict=True):
        pieces = found.boxes[group]
        sides = (pieces[:, 2:] - pieces[:, :2]).amax(dim=0).clamp(min=1)
        factor = max(factor, float(((box[2:] - box[:2]) / sides).max()))
    return min(math.ceil(factor - 0.1), FINEST)


def _points(roi: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The centres of the cells of a map in the image: x and y, float [M] each."""
    steps = (torch.arange(side) + 0.5) / side
    return roi[0] + steps * (roi[2] - roi[0]), roi[1] + steps * (roi[3] - roi[1])


def _depth(roi: Tensor, side: int, window: Window, image_size: tuple[int, int]) -> Tensor:
    """How far inside of a tile each point of a map lies: float [M, M], negative outside; the image's border is none."""
    distances = []
    limits = (image_size[1], image_size[0])
    for axis, points in enumerate(_points(roi, side)):
        low, high = window[axis], window[axis + 2]
        before = points - low if low > 0 else torch.full_like(points, math.inf)
        after = high - points if high < limits[axis] else torch.full_like(points, math.inf)
        distances.append(torch.minimum(before, after))
    return torch.minimum(distances[0][None], distances[1][:, None])


def _sampled(pieces: Detections, roi: Tensor, side: int, depths: Tensor) -> dict[str, Tensor]:
    """The maps of an object, by name: float [M, M], at each point those of the piece whose tile it lies deepest in."""
    if len(pieces) == 1 and all(values.shape[-1] == side for values in pieces.maps.values()):
        return {name: values[0] for name, values in pieces.maps.items()}
    xs, ys = _points(roi, side)
    rois = pieces.map_boxes
    x = (xs - rois[:, :1]) / (rois[:, 2:3] - rois[:, :1]).clamp(min=1e-6) * 2 - 1
    y = (ys - rois[:, 1:2]) / (rois[:, 3:] - rois[:, 1:2]).clamp(min=1e-6) * 2 - 1
    count = len(pieces)
    grid = torch.stack([x[:, None].expand(count, side, side), y[:, :, None].expand(count, side, side)], dim=3)
    deepest = depths.argmax(dim=0, keepdim=True)
    # A map ends at the border of its RoI; within, the values go on to that border, as they do where it is pasted.
    within = (grid.abs() <= 1).all(dim=3)
    chosen = {}
    for name, values in pieces.maps.items():
        sampled = F.grid_sample(values[:, None], grid, padding_mode="border", align_corners=False)[:, 0] * within
        chosen[name] = sampled.gather(0, deepest)[0]
    return chosen
