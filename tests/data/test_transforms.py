from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bcnet.config import get_cfg
from bcnet.data.augmentation import Augmentation, ResizeShortestEdge
from bcnet.data.transforms import FLIPS, Transform, resized_size

sides = st.integers(1, 90)


@pytest.mark.parametrize(
    "height, width, short, longest, expected",
    [
        (480, 640, 800, 1333, (800, 1067)),
        (640, 480, 800, 1333, (1067, 800)),
        (427, 640, 800, 1333, (800, 1199)),
        (333, 500, 800, 1333, (800, 1201)),
        (640, 360, 800, 1333, (1333, 750)),
        (375, 500, 600, 900, (600, 800)),
        (300, 300, 400, 1000, (400, 400)),
        (1080, 1920, 0, 1333, (1080, 1920)),
        (100, 201, 50, 1000, (50, 101)),  # 100.5 rounds up
        (612, 612, 800, 700, (700, 700)),
        (1, 5000, 800, 1333, (1, 1333)),
    ],
)
def test_resized_size(height, width, short, longest, expected):
    assert resized_size(height, width, short, longest) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2000), st.integers(1, 3000))
def test_resized_size_keeps_its_bounds(height, width, short, longest):
    new = resized_size(height, width, short, longest)
    assert max(new) <= longest
    assert min(new) <= short
    assert min(new) >= 1
    # One of the two bounds is met.
    assert min(new) == short or max(new) == longest


def test_image_is_pil_bilinear_then_flipped():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    resized = np.asarray(Image.fromarray(pixels).resize((80, 56), Image.Resampling.BILINEAR))
    for flip, expected in (("none", resized), ("horizontal", resized[:, ::-1]), ("vertical", resized[::-1])):
        transform = Transform((37, 53), (56, 80), flip)
        np.testing.assert_array_equal(transform.apply_image(pixels), expected)
        np.testing.assert_array_equal(transform.apply_image(Image.fromarray(pixels)), expected)
    # Channels are resized one by one, so the order does not matter.
    swapped = Transform((37, 53), (56, 80)).apply_image(np.ascontiguousarray(pixels[:, :, ::-1]))
    np.testing.assert_array_equal(swapped[:, :, ::-1], resized)


def test_same_size_leaves_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Transform((7, 9), (7, 9)).apply_image(pixels), pixels)


def test_boxes_are_scaled_flipped_and_clipped():
    boxes = np.array([[10, 20, 30, 60], [-5, -5, 500, 500.0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(
        Transform((100, 200), (50, 300)).apply_boxes(boxes), [[15, 10, 45, 30], [0, 0, 300, 50], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        Transform((100, 200), (50, 300), "horizontal").apply_boxes(boxes[:2]), [[255, 10, 285, 30], [0, 0, 300, 50]]
    )
    np.testing.assert_array_equal(
        Transform((100, 200), (50, 300), "vertical").apply_boxes(boxes[:2]), [[15, 20, 45, 40], [0, 0, 300, 50]]
    )
    assert Transform((100, 200), (50, 300)).apply_boxes(np.zeros((0, 4))).shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(FLIPS))
def test_source_pixels_are_pils_nearest_and_the_flip(height, width, new_height, new_width, flip):
    mask = np.random.default_rng(height * width).integers(0, 2, (height, width), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(mask).resize((new_width, new_height), Image.Resampling.NEAREST))
    expected = {"none": expected, "horizontal": expected[:, ::-1], "vertical": expected[::-1]}[flip]
    rows, columns = Transform((height, width), (new_height, new_width), flip).source_pixels()
    np.testing.assert_array_equal(mask[rows][:, columns], expected)


def test_faulty_transforms():
    with pytest.raises(ValueError, match="flip must be one of none, horizontal, vertical, got 'both'"):
        Transform((4, 4), (4, 4), "both")
    with pytest.raises(ValueError, match="at least 1 x 1"):
        Transform((4, 4), (0, 4))
    with pytest.raises(ValueError, match=r"height and width \(3, 4\), not \(4, 3\)"):
        Transform((4, 3), (8, 6)).apply_image(np.zeros((3, 4, 3), dtype=np.uint8))


def test_choice_and_range_draw_all_their_short_sides():
    rng = np.random.default_rng(0)
    choice = ResizeShortestEdge((30, 50, 40), 1000)
    assert {choice.output_size(10, 20, rng) for _ in range(60)} == {(30, 60), (50, 100), (40, 80)}
    interval = ResizeShortestEdge((30, 33), 1000, "range")
    assert {interval.output_size(10, 20, rng)[0] for _ in range(60)} == {30, 31, 32, 33}


def test_draw_without_a_generator():
    assert ResizeShortestEdge((30,), 1000).output_size(10, 20) == (30, 60)
    with pytest.raises(ValueError, match="a random generator is required"):
        ResizeShortestEdge((30, 40), 1000).output_size(10, 20)
    with pytest.raises(ValueError, match="required to draw the flip 'horizontal'"):
        Augmentation(ResizeShortestEdge((30,), 1000), "horizontal").draw(10, 20)
    for short_sides, sampling in (((), "choice"), ((1, 2, 3), "range"), ((1,), "sometimes")):
        with pytest.raises(ValueError, match="sampling"):
            ResizeShortestEdge(short_sides, 1000, sampling)


def test_from_config():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (32, 64)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    cfg.INPUT.MAX_SIZE_TRAIN = 100
    cfg.INPUT.MIN_SIZE_TEST = 0
    train = Augmentation.from_config(cfg, training=True)
    assert train == Augmentation(ResizeShortestEdge((32, 64), 100, "range"), "horizontal")
    test = Augmentation.from_config(cfg, training=False)
    assert test.draw(17, 23) == Transform((17, 23), (17, 23), "none")
    rng = np.random.default_rng(3)
    flips = [train.draw(10, 10, rng).flip for _ in range(400)]
    assert set(flips) == {"none", "horizontal"}
    assert 150 < flips.count("horizontal") < 250
