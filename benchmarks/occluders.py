"""Benchmark of the occluder rule: RLE algebra against the published code's full-image arrays."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pycocotools import mask as coco_mask
from torch.utils.benchmark import timer

from bcnet.data.coco import load_coco
from bcnet.occlusion.rule import IOU_THRESHOLD, MIN_PIXELS, occluder_rles
from bcnet.ops.rle import RLE, segmentation_to_rle
from benchmarks.row import BenchmarkRow
from benchmarks.timing import interleaved

# One image: xywh boxes and segmentations as in the json, crowds excluded, and (H, W).
Scene = tuple[list[list[float]], list, tuple[int, int]]


def benchmark_occluders(
    annotation_file: str | None = None,
    *,
    repeats: int = 5,
    max_images: int | None = None,
    seed: int = 0,
    clock: Callable[[], float] = timer,
) -> list[BenchmarkRow]:
    """Times the computation of the occluder masks of all images from the json's segmentations.

    The peer is the published code's `process_dataset.py`: an int64 array of the full image for every mask,
    box and union. Its printing, overlap statistics and contours are omitted, in its favour. It is checked that both
    return the same masks.

    Args:
        annotation_file: a COCO json; None: `coco_like_scenes`.
        repeats: repetitions of each implementation, interleaved.
        max_images: maximum number of images of the file, in its order, or of random scenes.
        seed: seed of the random scenes.
        clock: function that returns seconds.

    Raises:
        ValueError: the file is not a COCO json, or has a malformed annotation.
        RuntimeError: the results of the two implementations differ.
    """
    if annotation_file is None:
        scenes = coco_like_scenes(seed=seed)[:max_images]
    else:
        scenes = read_scenes(annotation_file, max_images)
    instances = sum(len(boxes) for boxes, _, _ in scenes)
    if instances == 0:
        raise ValueError(f"{annotation_file} has no instances to time")
    for scene in scenes:
        for rle, mask in zip(by_rle(*scene), by_full_images(*scene), strict=True):
            if (rle is None) != (mask is None) or (rle is not None and (coco_mask.decode(rle) != mask).any()):
                raise RuntimeError("RLE algebra and full-image arrays disagree on an occluder mask")
    variants = {"ours": lambda: _run_all(by_rle, scenes), "peer": lambda: _run_all(by_full_images, scenes)}
    seconds = interleaved(variants, repeats, warm_up=0, clock=clock)
    ours, theirs = ([value / instances for value in seconds[variant]] for variant in ("ours", "peer"))
    source = f"{len(scenes)} random scenes" if annotation_file is None else f"{len(scenes)} images of {annotation_file}"
    work = f"occluder masks, {source}, {instances} instances"
    peer = "full-image int64 arrays"
    return [BenchmarkRow(work, peer, ours, theirs, "instance", name="occluders", required=50.0)]


def by_rle(boxes: list, segmentations: list, size: tuple[int, int]) -> list[RLE | None]:
    """bcnet's implementation."""
    rles = [segmentation_to_rle(segmentation, *size) for segmentation in segmentations]
    return occluder_rles(boxes, rles, [False] * len(rles), size)


def by_full_images(boxes: list, segmentations: list, size: tuple[int, int]) -> list[np.ndarray | None]:
    """The published implementation, for boxes inside the image: int64 [H, W] of 0 and 1, or None, for each instance."""
    masks = []
    for segmentation in segmentations:
        rles = coco_mask.frPyObjects(segmentation, *size) if not _is_compressed(segmentation) else segmentation
        rle = coco_mask.merge(rles) if isinstance(rles, list) else rles
        masks.append(coco_mask.decode(rle).astype(bool).astype(np.int64))
    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    crops = []
    for x0, y0, x1, y1 in corners:
        crop = np.zeros(size, dtype=np.int64)
        crop[int(y0) : int(y1), int(x0) : int(x1)] = 1
        crops.append(crop)
    occluders = []
    for i, crop in enumerate(crops):
        union = np.zeros(size, dtype=np.int64)
        for j, mask in enumerate(masks):
            if j != i and _inclusive_iou(corners[i], corners[j]) > IOU_THRESHOLD:
                union += crop * mask
        union[union > 1] = 1
        occluders.append(union if np.count_nonzero(union) > MIN_PIXELS else None)
    return occluders


def read_scenes(annotation_file: str, max_images: int | None = None) -> list[Scene]:
    """The images of a COCO json that have instances."""
    records, _ = load_coco(annotation_file, "")
    scenes = []
    for record in records[:max_images]:
        objects = [instance for instance in record.instances if not instance.iscrowd]
        if objects:
            boxes = [instance.bbox for instance in objects]
            segmentations = [instance.segmentation for instance in objects]
            scenes.append((boxes, segmentations, (record.height, record.width)))
    return scenes


def coco_like_scenes(count: int = 40, size: tuple[int, int] = (480, 640), seed: int = 0) -> list[Scene]:
    """Random star-shaped polygons in groups, like COCO's annotations in count, size, vertices and overlap.

    A sample of train2017, and 400 of these scenes: 9.1 and 9.0 instances an image, of 21 and 22 vertices; side
    of the box 49 and 49 pixels in the median, 209 and 189 at nine tenths; 54 % and 53 % have an occluder.
    """
    random = np.random.default_rng(seed)
    height, width = size
    scenes = []
    for _ in range(count):
        boxes, segmentations = [], []
        centre = random.uniform(0, [width, height])
        for _ in range(min(1 + int(random.exponential(9)), 30)):
            if random.random() < 0.25:
                centre = random.uniform(0, [width, height])
            radius = min(math.exp(random.normal(3.4, 1.1)), 0.45 * height)
            angles = np.sort(random.uniform(0, 2 * math.pi, int(random.integers(8, 37))))
            radii = radius * random.uniform(0.6, 1, len(angles))
            middle = (centre + random.normal(0, 0.12 * height, 2)).clip(0, [width, height])
            x = (middle[0] + radii * np.cos(angles)).clip(0, width)
            y = (middle[1] + radii * np.sin(angles)).clip(0, height)
            boxes.append([float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))])
            segmentations.append([np.stack([x, y], axis=1).ravel().round(2).tolist()])
        scenes.append((boxes, segmentations, size))
    return scenes


def _is_compressed(segmentation: list | dict) -> bool:
    return isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list)


def _inclusive_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    inside = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1) * max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    area_a, area_b = ((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return inside / (area_a + area_b - inside)


def _run_all(variant: Callable, scenes: list[Scene]) -> None:
    for scene in scenes:
        variant(*scene)
