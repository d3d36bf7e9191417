"""Crops, large-scale jitter and colour jitter give detectron2's pixels and boxes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip(
    "detectron2.data.transforms", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

from detectron2.data import transforms as T

from bcnet.data.augmentation import ColorJitter, RandomCrop, ScaleJitter
from bcnet.data.transforms import Transform

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 70, 3), dtype=np.uint8)
MASK = np.random.default_rng(1).integers(0, 2, (48, 70), dtype=np.uint8)
BOXES = np.array([[3, 4, 30, 40], [0, 0, 70, 48], [50.5, 20.25, 69, 47]])


class Fixed:
    """Stands in for a generator: gives these numbers, in order."""

    def __init__(self, *values):
        self.values = list(values)

    def uniform(self, low, high, size=None):
        return low + (high - low) * self.values.pop(0)

    def random(self, count):
        return np.array([self.values.pop(0) for _ in range(count)])

    def integers(self, low, high=None):
        low, high = (0, low) if high is None else (low, high)
        return low + int(self.values.pop(0) * (high - low))


def fix_numpy(monkeypatch, *values):
    fixed = Fixed(*values)
    monkeypatch.setattr(np.random, "uniform", fixed.uniform)
    monkeypatch.setattr(np.random, "rand", fixed.random)
    monkeypatch.setattr(np.random, "randint", fixed.integers)


def assert_same(transform, theirs):
    np.testing.assert_array_equal(transform.apply_image(IMAGE), theirs.apply_image(IMAGE))
    height, width = transform.output_size
    boxes = np.minimum(theirs.apply_box(BOXES).clip(min=0), [width, height, width, height])
    np.testing.assert_allclose(transform.apply_boxes(BOXES), boxes, rtol=0, atol=1e-9)
    rows, columns = transform.source_pixels()
    mask = np.pad(MASK, ((0, 1), (0, 1)))[rows][:, columns]
    np.testing.assert_array_equal(mask == 1, theirs.apply_segmentation(MASK) == 1)


@pytest.mark.parametrize("flip", ["none", "horizontal"])
@pytest.mark.parametrize("scale, place", [(0.0, 0.3), (0.3, 0.9), (0.6, 0.5), (0.99, 0.77)])
def test_large_scale_jitter(monkeypatch, scale, place, flip):
    size = (40, 64)
    resized, offset = ScaleJitter(0.1, 2.0, size).draw(48, 70, Fixed(scale, place))
    transform = Transform((48, 70), size, flip, None, resized, offset)
    fix_numpy(monkeypatch, scale, place, 0.5)
    augmentations = [T.ResizeScale(0.1, 2.0, *size), T.FixedSizeCrop(size)]
    augmentations += [T.RandomFlip(1.0)] if flip == "horizontal" else []
    assert_same(transform, T.AugmentationList(augmentations)(T.AugInput(IMAGE)))


@pytest.mark.parametrize(
    "type, size, values",
    [
        ("relative", (0.5, 0.8), (0.3, 0.6)),
        ("relative_range", (0.5, 0.8), (0.25, 0.75, 0.3, 0.6)),
        ("absolute", (30, 100), (0.9, 0.0)),
        ("absolute_range", (20, 60), (0.25, 0.75, 0.3, 0.6)),
    ],
)
def test_random_crop(monkeypatch, type, size, values):
    region = RandomCrop(type, size).draw(48, 70, Fixed(*values))
    transform = Transform((48, 70), (60, 50), region=region)
    fix_numpy(monkeypatch, *values)
    theirs = T.AugmentationList([T.RandomCrop(type, size), T.Resize((60, 50))])(T.AugInput(IMAGE))
    assert_same(transform, theirs)


def test_colour_jitter(monkeypatch):
    jitter = ColorJitter((0.5, 1.5), (0.6, 1.7), (0.2, 1.9))
    ours = jitter.apply(IMAGE, Fixed(0.3, 0.9, 0.6))
    fix_numpy(monkeypatch, 0.3, 0.9, 0.6)
    augmentations = [T.RandomBrightness(0.5, 1.5), T.RandomContrast(0.6, 1.7), T.RandomSaturation(0.2, 1.9)]
    theirs = T.AugmentationList(augmentations)(T.AugInput(IMAGE)).apply_image(IMAGE)
    np.testing.assert_array_equal(ours, theirs)
