"""Config keys to start with, from the counts of a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bcnet.data.inspection.counts import DatasetCounts
from bcnet.words import counted

_COCO_IMAGES, _COCO_EPOCHS = 118_287, 12  # of detectron2's 1x schedule
_COCO_SHORT, _COCO_LONG, _COCO_IMAGE_SHORT = 800, 1333, 480
_STRIDE = 32


def config_lines(counts: DatasetCounts, train: str, test: str | None = None) -> list[str]:
    """Config keys with values, one a line, as they follow ``bcnet train --config-file ...`` on a command line.

    The schedule is a rule of thumb: 12 epochs for as many images as COCO has, and more the fewer they are, by the
    square root; batch and learning rate of Faster R-CNN, scaled together.

    Args:
        counts: of the training set.
        train, test: names or specs; without a test set, training ends without an evaluation.
    """
    tests = f'("{test}",)' if test else "()"
    lines = [f"DATASETS.TRAIN '(\"{train}\",)'", f"DATASETS.TEST '{tests}'"]
    lines += _input_size(counts)
    lines += _schedule(max(counts.images - counts.empty, 1))
    if counts.objects and counts.without_mask == counts.objects:
        lines.append("MODEL.MASK_ON False")
    if counts.objects and counts.with_amodal == counts.objects:
        lines.append("MODEL.BILAYER.AMODAL True")
    if counts.ordered_pairs:
        lines.append("MODEL.BILAYER.OCCLUDER_TARGET front")
    return lines


def _input_size(counts: DatasetCounts) -> list[str]:
    short = float(np.median(np.minimum(counts.heights, counts.widths)))
    long = max(np.maximum(counts.heights, counts.widths))
    enlargement = _COCO_SHORT / _COCO_IMAGE_SHORT if _has_small_objects(counts) else 1
    side = min(_multiple(short * enlargement), _COCO_SHORT)
    limit = _COCO_LONG if side == _COCO_SHORT else _multiple(side * _COCO_LONG / _COCO_SHORT)
    longest = min(_multiple(long * side / short), limit)
    sides = side, max(longest, side)
    return [
        f"INPUT.MIN_SIZE_TRAIN '({sides[0]},)'",
        f"INPUT.MAX_SIZE_TRAIN {sides[1]}",
        f"INPUT.MIN_SIZE_TEST {sides[0]}",
        f"INPUT.MAX_SIZE_TEST {sides[1]}",
    ]


def _has_small_objects(counts: DatasetCounts) -> bool:
    """Whether images are to be enlarged as COCO's are, 41 % of whose objects are small."""
    return counts.small > 0.25 * counts.objects


def _multiple(side: float) -> int:
    return max(_STRIDE * math.ceil(side / _STRIDE), 2 * _STRIDE)


def _schedule(images: int) -> list[str]:
    batch = 16 if images >= 2000 else 8 if images >= 200 else 4
    epochs = _COCO_EPOCHS * math.sqrt(_COCO_IMAGES / images)
    iterations = max(_rounded(epochs * images / batch), 100)
    steps = _rounded(iterations * 2 / 3), _rounded(iterations * 8 / 9)
    return [
        f"SOLVER.IMS_PER_BATCH {batch}",
        f"SOLVER.BASE_LR {0.02 * batch / 16:g}",
        f"SOLVER.MAX_ITER {iterations}",
        f"SOLVER.STEPS '({steps[0]}, {steps[1]})'",
        f"SOLVER.WARMUP_ITERS {min(1000, iterations // 10)}",
    ]


def _rounded(value: float) -> int:
    """To two digits."""
    unit = 10 ** max(math.floor(math.log10(max(value, 1))) - 1, 0)
    return int(round(value / unit) * unit)


def remarks(counts: DatasetCounts, class_names: Sequence[str]) -> list[str]:
    """What the counts mean for a training with occlusion, one sentence each."""
    found = []
    if counts.objects and not counts.with_occluder:
        found.append("no object has an occluder: the occluder losses will be 0 (INPUT.COMPOSITION makes occlusion)")
    if _has_small_objects(counts):
        found.append(f"{counts.small} of {counted(counts.objects, 'object')} are small: images are enlarged for them")
    if counts.pairs and not counts.ordered_pairs:
        found.append("no order is annotated: every neighbour counts as occluder (INPUT.COMPOSITION makes order)")
    unused = [name for index, name in enumerate(class_names) if not counts.per_class[index]]
    if unused:
        found.append(f"without an object: {_classes(unused)}")
    rare = [name for index, name in enumerate(class_names) if 0 < counts.per_class[index] < 10]
    if rare:
        found.append(f"with fewer than 10 objects: {_classes(rare)}")
    return found


def _classes(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'class', 'classes')}: {', '.join(names[:10])}{', ...' if names[10:] else ''}"
