from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from bcnet.occlusion import occluder_rles
from bcnet.occlusion.rule import inclusive_box_iou
from bcnet.ops.rle import segmentation_to_rle


def published_iou(a, b):
    """IoU of two xywh boxes, one added to every side, in plain floats."""
    ax0, ay0, ax1, ay1 = a[0], a[1], a[0] + a[2], a[1] + a[3]
    bx0, by0, bx1, by1 = b[0], b[1], b[0] + b[2], b[1] + b[3]
    inside = max(0, min(ax1, bx1) - max(ax0, bx0) + 1) * max(0, min(ay1, by1) - max(ay0, by0) + 1)
    return inside / ((ax1 - ax0 + 1) * (ay1 - ay0 + 1) + (bx1 - bx0 + 1) * (by1 - by0 + 1) - inside)


def full_image_occluders(boxes, masks, iscrowd, *, iou_threshold=0.05, min_pixels=20, in_front=None):
    """The rule written out on full images."""
    results = []
    for i, (x, y, w, h) in enumerate(boxes):
        rows, columns = np.ogrid[: masks[i].shape[0], : masks[i].shape[1]]
        inside = (int(x) <= columns) & (columns < int(x + w)) & (int(y) <= rows) & (rows < int(y + h))
        occluder = np.zeros(masks[i].shape, dtype=bool)
        for j in range(len(boxes)):
            if j == i or iscrowd[j] or iscrowd[i] or not (in_front is None or in_front[i][j]):
                continue
            if published_iou(boxes[i], boxes[j]) > iou_threshold:
                occluder |= inside & (masks[j] != 0)
        results.append(occluder if occluder.sum() > min_pixels else None)
    return results


def number(low, high):
    return st.one_of(
        st.integers(low, high), st.floats(low, high, width=32), st.integers(2 * low, 2 * high).map(lambda v: v / 2)
    )


@st.composite
def scenes(draw):
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    count = draw(st.integers(0, 5))
    boxes, segmentations = [], []
    for _ in range(count):
        boxes.append([draw(number(-6, 28)), draw(number(-6, 28)), draw(number(0, 30)), draw(number(0, 30))])
        kind = draw(st.sampled_from(["polygon", "compressed", "uncompressed", "empty"]))
        if kind == "polygon":
            polygon = st.lists(number(-6, 30), min_size=6, max_size=12).filter(lambda p: len(p) % 2 == 0)
            segmentations.append(draw(st.lists(polygon, min_size=1, max_size=3)))
            continue
        seed = draw(st.integers(0, 2**32 - 1))
        share = 0.0 if kind == "empty" else draw(st.sampled_from([0.1, 0.5, 0.9, 1.0]))
        mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
        rle = coco_mask.encode(np.asfortranarray(mask))
        if kind == "uncompressed":
            flat = np.concatenate([[0], mask.T.ravel()])
            edges = np.concatenate([[0], np.flatnonzero(np.diff(flat)), [height * width]])
            rle = {"size": [height, width], "counts": np.diff(edges).tolist()}
        else:
            rle["counts"] = rle["counts"].decode()
        segmentations.append(rle)
    iscrowd = draw(st.lists(st.sampled_from([False, False, False, True]), min_size=count, max_size=count))
    order = st.lists(st.lists(st.booleans(), min_size=count, max_size=count), min_size=count, max_size=count)
    return (height, width), boxes, segmentations, iscrowd, draw(st.none() | order)


@settings(max_examples=250, deadline=None)
@given(scenes(), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([0, 3, 20]))
def test_equals_the_rule_on_full_images(scene, iou_threshold, min_pixels):
    image_size, boxes, segmentations, iscrowd, in_front = scene
    rles = [segmentation_to_rle(segmentation, *image_size) for segmentation in segmentations]
    settings = {"iou_threshold": iou_threshold, "min_pixels": min_pixels, "in_front": in_front}
    if in_front is not None:
        settings["in_front"] = np.array(in_front, dtype=bool).reshape(len(boxes), len(boxes))
    got = occluder_rles(boxes, rles, iscrowd, image_size, **settings)
    expected = full_image_occluders(boxes, [coco_mask.decode(rle) for rle in rles], iscrowd, **settings)
    assert len(got) == len(expected)
    for rle, mask in zip(got, expected, strict=True):
        if mask is None:
            assert rle is None
        else:
            assert rle == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@given(st.lists(st.tuples(number(-50, 700), number(-50, 700), number(0, 700), number(0, 700)), min_size=1, max_size=6))
def test_iou_is_the_published_one_to_the_last_bit(boxes):
    expected = [[published_iou(a, b) for b in boxes] for a in boxes]
    assert inclusive_box_iou(np.array(boxes)).tolist() == expected


def rectangle(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def two_rectangles(first, second, size=(40, 60)):
    boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in (first, second)]
    return boxes, [segmentation_to_rle(rectangle(*box), *size) for box in (first, second)], [False, False], size


def test_two_rectangles():
    boxes, rles, crowd, size = two_rectangles((0, 0, 20, 20), (10, 10, 30, 30))
    first, second = occluder_rles(boxes, rles, crowd, size)
    expected = np.zeros(size, dtype=np.uint8)
    expected[10:20, 10:20] = 1
    assert first == second == coco_mask.encode(np.asfortranarray(expected))


def test_twenty_pixels_are_dropped_and_twenty_one_kept():
    boxes, rles, crowd, size = two_rectangles((0, 0, 10, 10), (5, 6, 10, 10))
    assert coco_mask.area(rles[1]) == 20
    assert occluder_rles(boxes, rles, crowd, size)[0] is None
    boxes, rles, crowd, size = two_rectangles((0, 0, 10, 10), (3, 7, 10, 10))
    assert coco_mask.area(occluder_rles(boxes, rles, crowd, size)[0]) == 21


def test_neighbours_that_share_only_an_edge_of_pixels():
    # Disjoint in area, but with one added to every side they overlap by a column.
    boxes = [[0, 0, 10, 10], [10, 0, 10, 10]]
    assert inclusive_box_iou(np.array(boxes))[0, 1] == 11 / (121 + 121 - 11)


def test_crowds_neither_occlude_nor_are_occluded():
    boxes, rles, _, size = two_rectangles((0, 0, 20, 20), (10, 10, 30, 30))
    assert occluder_rles(boxes, rles, [False, True], size) == [None, None]
    assert occluder_rles(boxes, rles, [True, False], size) == [None, None]


def test_a_known_order_counts_only_what_is_in_front():
    boxes, rles, crowd, size = two_rectangles((0, 0, 20, 20), (10, 10, 30, 30))
    front, behind = occluder_rles(boxes, rles, crowd, size, in_front=np.array([[False, False], [True, False]]))
    assert front is None
    assert coco_mask.area(behind) == 100


def test_no_instances():
    assert occluder_rles(np.zeros((0, 4)), [], [], (4, 5)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [[0, 0, 20, 20]]}, "got 1, 2 and 2"),
        ({"boxes": [[0, 0, 20, 20], [0, 0, -1, 5]]}, r"box 1 .* -1"),
        ({"boxes": [[0, 0, 20, 20], [0, 0, float("nan"), 5]]}, "box 1 .* nan"),
        ({"image_size": (60, 40)}, r"mask 0 has size \(40, 60\), the image .* \(60, 40\)"),
        ({"in_front": np.zeros((2, 3))}, r"\[2, 2\], got \(2, 3\)"),
    ],
)
def test_bad_input_is_named(change, message):
    boxes, rles, crowd, size = two_rectangles((0, 0, 20, 20), (10, 10, 30, 30))
    arguments = {"boxes": boxes, "rles": rles, "iscrowd": crowd, "image_size": size} | change
    with pytest.raises(ValueError, match=message):
        occluder_rles(**arguments)
