from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_mask

from bcnet.ops.rle import SegmentationError, box_rle, compressed_runs, rle_to_json, segmentation_to_rle

SQUARE = [[2, 1, 6, 1, 6, 4, 2, 4]]  # columns 2..5, rows 1..3


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def run_lengths(mask):
    flat = np.concatenate([[0], np.asarray(mask, dtype=np.int8).T.ravel()])
    runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)), [mask.size]])).tolist()
    return runs if runs[-1] or len(runs) == 1 else runs[:-1]


masks = npst.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 1))


@given(masks)
def test_the_three_forms_of_a_mask_give_one_rle(mask):
    height, width = mask.shape
    expected = encode(mask)
    as_text = json.loads(json.dumps(rle_to_json(expected)))
    assert segmentation_to_rle(expected, height, width) == expected
    assert segmentation_to_rle(as_text, height, width) == expected
    assert segmentation_to_rle({"size": [height, width], "counts": run_lengths(mask)}, height, width) == expected
    assert compressed_runs(expected["counts"]).tolist() == run_lengths(mask)


@given(masks, st.data())
def test_empty_runs_are_joined(mask, data):
    # pycocotools' merge stops early at an empty run, so none may come through.
    runs = [0]
    for length in run_lengths(mask):
        cut = data.draw(st.integers(0, length))
        runs[-1] += cut
        runs += [0, length - cut, 0]
    runs.pop()
    height, width = mask.shape
    rle = {"size": [height, width], "counts": runs}
    assert segmentation_to_rle(rle, height, width) == encode(mask)
    compressed = coco_mask.frPyObjects(rle, height, width)
    assert segmentation_to_rle(compressed, height, width) == encode(mask)


@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.integers(-5, 25), min_size=4, max_size=4))
def test_box_rle_is_the_clipped_rectangle(height, width, corners):
    x0, y0, x1, y1 = corners
    rows, columns = np.ogrid[:height, :width]
    mask = (x0 <= columns) & (columns < x1) & (y0 <= rows) & (rows < y1)
    assert box_rle(*corners, (height, width)) == encode(mask)


def test_polygons_are_rasterised_as_pycocotools_does_and_united():
    expected = np.zeros((8, 10), dtype=np.uint8)
    expected[1:4, 2:6] = 1
    assert segmentation_to_rle(SQUARE, 8, 10) == encode(expected)
    expected[2:7, 4:9] = 1
    assert segmentation_to_rle([*SQUARE, [4, 2, 9, 2, 9, 7, 4, 7]], 8, 10) == encode(expected)


def test_arrays_and_numpy_sizes_are_taken():
    assert segmentation_to_rle([np.float32(SQUARE[0])], np.int64(8), np.int32(10)) == segmentation_to_rle(SQUARE, 8, 10)


@pytest.mark.parametrize("polygon", [[1, 1, 1, 1, 1, 1], [20, 20, 30, 20, 30, 30]])
def test_a_shape_without_pixels_is_an_empty_mask(polygon):
    assert segmentation_to_rle([polygon], 8, 10) == encode(np.zeros((8, 10)))


@pytest.mark.parametrize(
    ("segmentation", "reason", "value"),
    [
        (None, "no segmentation", "None"),
        ([], "no segmentation", r"\[\]"),
        ("abc", "neither polygons nor RLE", "str 'abc'"),
        (7, "neither polygons nor RLE", "int 7"),
        ([1, 2, 3, 4, 5, 6], "flat list", "got 1"),
        ([[[1, 2], [3, 4], [5, 6]]], "flat list", r"\[\[1, 2\], \[3, 4\]"),
        ([[[1, 2], [3]]], "flat list", r"\[\[1, 2\], \[3\]\]"),
        ([["1", "2", "3", "4", "5", "6"]], "flat list", "'1', '2'"),
        ([[True] * 6], "flat list", "True"),
        ([[0, 0, 5, 5]], "fewer than 3 points", r"got 4: \[0, 0, 5, 5\]"),
        ([[]], "fewer than 3 points", r"got 0: \[\]"),
        ([[0, 0, 5, 5, 0, 5, 1]], "an odd number of coordinates", "got 7"),
        ([*SQUARE, [0, 0, 5, 5]], "fewer than 3 points", "got 4"),
        ([[0, 0, 5, 5, 0, float("nan")]], "far outside", "coordinate nan"),
        ([[0, 0, float("inf"), 5, 0, 5]], "far outside", "10 x 8 pixels has the coordinate inf"),
        ([[0, 0, 1e9, 5, 0, 5]], "far outside", "coordinate 1000000000.0"),
        ({"size": [8, 10]}, "without size or counts", "'size'"),
        ({"size": [10, 8], "counts": [80]}, "another size", r"\[10, 8\], the image's is \[8, 10\]"),
        ({"size": None, "counts": [80]}, "another size", "None"),
        ({"size": [8, 10], "counts": [79]}, "do not fill", r"8 x 10 = 80 pixels.*1 runs: \[79\]"),
        ({"size": [8, 10], "counts": [90, -10]}, "do not fill", r"\[90, -10\]"),
        ({"size": [8, 10], "counts": []}, "do not fill", "0 runs"),
        ({"size": [8, 10], "counts": ""}, "do not fill", "0 runs"),
        ({"size": [8, 10], "counts": [80.0]}, "unreadable", r"\[80.0\]"),
        ({"size": [8, 10], "counts": None}, "unreadable", "None"),
        ({"size": [8, 10], "counts": "o"}, "unreadable", "'o'"),  # the last number goes on
        ({"size": [8, 10], "counts": "\x00"}, "unreadable", "x00"),
        ({"size": [8, 10], "counts": "ooooooo0"}, "unreadable", "ooooooo0"),
        ({"size": [8, 10], "counts": "é"}, "unreadable", "é"),
    ],
)
def test_malformed_segmentations_are_named(segmentation, reason, value):
    with pytest.raises(SegmentationError, match=value) as error:
        segmentation_to_rle(segmentation, 8, 10)
    assert reason in error.value.reason


@pytest.mark.parametrize(("height", "width", "value"), [(0, 5, "height .* 0"), (5, -1, "width .* -1"), (5, 2.5, "2.5")])
def test_an_empty_image_is_named(height, width, value):
    with pytest.raises(ValueError, match=value):
        segmentation_to_rle(SQUARE, height, width)


def test_an_image_beyond_pycocotools_counters_is_refused():
    with pytest.raises(ValueError, match="65536 x 65536 pixels is too large"):
        segmentation_to_rle(SQUARE, 2**16, 2**16)


def test_the_error_survives_processes():
    error = SegmentationError("message", "reason")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason) == ("message", "reason")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=8), max_leaves=20)
almost_rles = st.fixed_dictionaries(
    {
        "size": st.just([8, 10]) | anything,
        "counts": st.lists(st.integers(-3, 90), max_size=9) | st.text("0123OTo`1") | anything,
    }
)
almost_polygons = st.lists(st.lists(st.integers(-200, 200) | st.floats(), max_size=10), max_size=3)


@settings(max_examples=400, deadline=None)
@given(anything | almost_rles | almost_polygons | st.dictionaries(st.text(max_size=6), anything, max_size=3))
def test_anything_gives_a_mask_or_a_value_error(segmentation):
    try:
        rle = segmentation_to_rle(segmentation, 8, 10)
    except SegmentationError:
        return
    mask = coco_mask.decode(rle)
    assert mask.shape == (8, 10)
    assert coco_mask.merge([rle, rle]) == encode(mask)
