from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_mask
from skimage.draw import disk

from bcnet.ops.outline import rle_to_polygons
from bcnet.ops.rle import segmentation_to_rle

masks = npst.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 1))


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def assert_comes_back(mask):
    rle = encode(mask)
    polygons = rle_to_polygons(rle)
    if not mask.any():
        assert polygons == []
        return
    assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in polygons)
    assert segmentation_to_rle(polygons, *mask.shape) == rle


@settings(max_examples=300)
@given(masks)
def test_any_mask_comes_back_to_the_pixel(mask):
    assert_comes_back(mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_blobs_with_holes_come_back_to_the_pixel(seed, count):
    random = np.random.default_rng(seed)
    mask = np.zeros((90, 120), dtype=np.uint8)
    for number in range(2 * count):
        rows, columns = disk(random.uniform(0, [90, 120]), random.uniform(2, 30), shape=mask.shape)
        mask[rows, columns] = number % 2 == 0
    assert_comes_back(mask)


def test_a_ring_is_one_polygon():
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[1:8, 1:8] = 1
    mask[3:6, 3:6] = 0
    assert len(rle_to_polygons(encode(mask))) == 1
    assert_comes_back(mask)


def test_a_rectangle_keeps_four_corners():
    mask = np.zeros((50, 60), dtype=np.uint8)
    mask[10:30, 20:50] = 1
    (polygon,) = rle_to_polygons(encode(mask))
    corners = sorted(zip(polygon[::2], polygon[1::2], strict=True))
    assert corners == [(20.25, 10.25), (20.25, 29.75), (49.75, 10.25), (49.75, 29.75)]
