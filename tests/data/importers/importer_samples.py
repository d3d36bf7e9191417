"""What the tests of the importers share."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data import load_dataset
from bcnet.data.source_masks import visible_rle


def masks(record):
    """The visible masks of the objects: bool [H, W] each."""
    objects = (instance for instance in record.instances if not instance.iscrowd)
    return [coco_mask.decode(visible_rle(record, instance)).astype(bool) for instance in objects]


def box_mask(shape, x0, y0, x1, y1):
    """bool [H, W], true in columns x0..x1-1 and rows y0..y1-1."""
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def read_one(spec):
    """The record of a data set of one image, and its description."""
    (record,), info = load_dataset(spec)
    return record, info


def same(found, expected):
    """Whether two lists of masks are equal."""
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))
