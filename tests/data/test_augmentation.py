"""Crop, large-scale jitter and colour jitter: known values and bounds; detectron2's numbers are in tests/detectron2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bcnet.config import get_cfg
from bcnet.data.augmentation import Augmentation, ColorJitter, RandomCrop, ResizeShortestEdge, ScaleJitter
from bcnet.data.transforms import PAD_VALUE, Transform

sides = st.integers(1, 60)


@settings(max_examples=80, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(["none", "horizontal", "vertical"]), st.integers(0, 2**31))
def test_image_and_masks_go_through_crop_resize_pad_and_flip_alike(height, width, new_height, new_width, flip, seed):
    rng = np.random.default_rng(seed)
    x, y = int(rng.integers(width)), int(rng.integers(height))
    region = (x, y, int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1)))
    resized = tuple(int(side) for side in rng.integers(1, 70, 2))
    offset = (int(rng.integers(resized[1])), int(rng.integers(resized[0])))
    transform = Transform((height, width), (new_height, new_width), flip, region, resized, offset)

    def by_hand(pixels, filter, pad):
        cut = pixels[y : y + region[3], x : x + region[2]]
        out = np.asarray(Image.fromarray(cut).resize(resized[::-1], filter))[offset[1] :, offset[0] :]
        out = out[:new_height, :new_width]
        missing = [(0, new_height - out.shape[0]), (0, new_width - out.shape[1])] + [(0, 0)] * (out.ndim - 2)
        out = np.pad(out, missing, constant_values=pad)
        return {"none": out, "horizontal": out[:, ::-1], "vertical": out[::-1]}[flip]

    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = by_hand(pixels, Image.Resampling.BILINEAR, PAD_VALUE)
    np.testing.assert_array_equal(transform.apply_image(pixels), expected)
    floats = transform.apply_image(pixels.astype(np.float32))
    assert floats.shape == expected.shape and np.abs(floats - expected).max() <= 1
    mask = rng.integers(0, 2, (height, width), dtype=np.uint8)
    rows, columns = transform.source_pixels()
    for table in (rows, columns):
        steps = np.diff(table)
        assert (steps >= 0).all() or (steps <= 0).all()
    outside = np.pad(mask, ((0, 1), (0, 1)))  # row `height` and column `width`
    np.testing.assert_array_equal(outside[rows][:, columns], by_hand(mask, Image.Resampling.NEAREST, 0))


def test_boxes_follow_crop_resize_and_offset():
    transform = Transform((100, 200), (60, 80), "none", (20, 10, 100, 50), (100, 200), (30, 40))
    boxes = [[20, 10, 120, 60], [40, 40, 50, 50], [0, 0, 10, 10]]
    np.testing.assert_array_equal(transform.apply_boxes(boxes), [[0, 0, 80, 60], [10, 20, 30, 40], [0, 0, 0, 0]])
    flipped = Transform((100, 200), (60, 80), "horizontal", (20, 10, 100, 50), (100, 200), (30, 40))
    np.testing.assert_array_equal(flipped.apply_boxes(boxes[1:2]), [[50, 20, 70, 40]])


def test_faulty_regions_and_offsets():
    with pytest.raises(ValueError, match=r"the region .* \(3, 0, 6, 4\) must lie in the image \(4, 8\)"):
        Transform((4, 8), (4, 4), region=(3, 0, 6, 4))
    with pytest.raises(ValueError, match=r"the offset \(x, y\) \(0, 9\) must lie in the resized image \(9, 9\)"):
        Transform((4, 8), (4, 4), resized_size=(9, 9), offset=(0, 9))


@pytest.mark.parametrize(
    "type, size, widths, heights",
    [
        ("relative", (0.5, 0.25), {20}, {20}),
        ("relative_range", (0.9, 0.25), range(20, 81), range(36, 41)),
        ("absolute", (10, 30), {30}, {10}),
        ("absolute", (1000, 30), {30}, {40}),
        ("absolute_range", (10, 30), range(10, 31), range(10, 31)),
        ("absolute_range", (50, 1000), range(50, 81), {40}),
    ],
)
def test_crops_of_each_type(type, size, widths, heights):
    rng = np.random.default_rng(0)
    drawn = [RandomCrop(type, size).draw(40, 80, rng) for _ in range(400)]
    assert {w for _, _, w, _ in drawn} <= set(widths) and {h for *_, h in drawn} <= set(heights)
    assert all(0 <= x <= 80 - w and 0 <= y <= 40 - h for x, y, w, h in drawn)
    assert len({w for _, _, w, _ in drawn}) > len(widths) / 2
    if max(widths) < 80:
        assert len({x for x, *_ in drawn}) > 10
    with pytest.raises(ValueError, match=r"must be one of relative, .*, got 'square'"):
        RandomCrop("square", size)


def test_scale_jitter_fills_its_size_from_small_to_large():
    augmentation = Augmentation(ResizeShortestEdge((0,), 999), scale_jitter=ScaleJitter(0.1, 2.0, (64, 96)))
    rng = np.random.default_rng(0)
    scales = []
    for _ in range(300):
        transform = augmentation.draw(100, 200, rng)
        assert transform.output_size == (64, 96)
        h, w = transform.resized_size
        scales.append(w / 96)  # the long side fits the box first
        assert abs(w - 2 * h) <= 2
        assert transform.offset[0] <= max(w - 96, 0) and transform.offset[1] <= max(h - 64, 0)
    assert min(scales) < 0.15 and max(scales) > 1.95 and abs(np.mean(scales) - 1.05) < 0.1
    image = augmentation.draw(100, 200, rng).apply_image(np.zeros((100, 200, 3), np.uint8))
    assert image.shape == (64, 96, 3)
    with pytest.raises(ValueError, match="a random generator is required"):
        augmentation.draw(100, 200)


def test_colour_jitter_of_one_leaves_the_image():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(ColorJitter().apply(image, np.random.default_rng(0)), image)
    grey = ColorJitter(saturation=(0.0, 0.0)).apply(image, np.random.default_rng(0))
    np.testing.assert_array_equal(grey, np.repeat((image @ [0.299, 0.587, 0.114]).astype(np.uint8)[:, :, None], 3, 2))
    dark = ColorJitter(brightness=(0.5, 0.5)).apply(image, np.random.default_rng(0))
    np.testing.assert_array_equal(dark, image // 2)
    flat = ColorJitter(contrast=(0.0, 0.0)).apply(image, np.random.default_rng(0))
    assert (flat == int(image.mean())).all()


def test_off_by_default_and_never_in_tests():
    cfg = get_cfg()
    plain = Augmentation.from_config(cfg, training=True)
    assert (plain.crop, plain.scale_jitter, plain.color_jitter, plain.cuts_objects) == (None, None, None, False)
    for section in (cfg.INPUT.CROP, cfg.INPUT.SCALE_JITTER, cfg.INPUT.COLOR_JITTER):
        section.ENABLED = True
    train = Augmentation.from_config(cfg, training=True)
    assert train.crop == RandomCrop("relative_range", (0.9, 0.9)) and train.cuts_objects
    assert train.scale_jitter == ScaleJitter(0.1, 2.0, (1024, 1024))
    assert train.color_jitter == ColorJitter((0.8, 1.2), (0.8, 1.2), (0.8, 1.2))
    test = Augmentation.from_config(cfg, training=False)
    assert (test.crop, test.scale_jitter, test.color_jitter) == (None, None, None)
