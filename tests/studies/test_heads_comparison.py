"""Paired differences with a bootstrap over images, and the splits of a test set."""

import numpy as np
import pytest

from studies.ground_truth_boxes import iou, means
from studies.heads.comparison import paired_difference
from studies.test_set import instance_splits, pair_splits

IMAGES = np.repeat(np.arange(20), 3)
ALL = np.ones(60, dtype=bool)


def test_a_constant_difference_has_an_interval_of_no_width():
    values = np.random.default_rng(0).uniform(0, 100, 60)
    found = paired_difference([values + 2], [values], IMAGES, ALL, resamples=50)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2, 2))
    assert (found.instances, found.images) == (60, 20)
    assert found.verdict == "higher, 1 seed(s)"


def test_instances_of_one_image_are_not_independent():
    noise = np.random.default_rng(1).normal(size=20)
    shared = paired_difference([np.repeat(noise, 3)], [np.zeros(60)], IMAGES, ALL)
    alone = paired_difference([np.repeat(noise, 3)], [np.zeros(60)], np.arange(60), ALL)
    assert shared.mean == alone.mean
    # Three copies of an image's value narrow the interval by the root of three where each counts as an image.
    assert (shared.high - shared.low) / (alone.high - alone.low) == pytest.approx(3**0.5, rel=0.15)


def test_values_that_one_arm_lacks_are_left_out_and_seeds_are_averaged_by_instance():
    first, second = np.full(60, 3.0), np.zeros(60)
    first[0] = np.nan
    found = paired_difference([first, first + 2], [second, second], IMAGES, ALL, resamples=20)
    assert found.instances == 59 and found.mean == pytest.approx(4) and found.by_seed == pytest.approx((3, 5))
    members = np.zeros(60, dtype=bool)
    members[0] = True
    assert paired_difference([first], [second], IMAGES, members) is None
    members[1] = True  # one image: no interval
    assert np.isnan(paired_difference([first], [second], IMAGES, members).low)
    with pytest.raises(ValueError, match="same seeds, at least one; got 1 and 2"):
        paired_difference([first], [second, second], IMAGES, ALL)


def test_the_margin_over_seeds_is_that_of_the_t_distribution():
    # Seeds 1, 2, 3: standard deviation 1, and 4.3027 is the 97.5 % quantile of t with two degrees of freedom.
    found = paired_difference([np.full(60, s) for s in (1.0, 2.0, 3.0)], [np.zeros(60)] * 3, IMAGES, ALL, resamples=20)
    assert found.seed_margin == pytest.approx(4.3027 / 3**0.5, abs=1e-4)
    assert np.isnan(paired_difference([np.ones(60)], [np.zeros(60)], IMAGES, ALL, resamples=20).seed_margin)


def test_a_verdict_needs_intervals_without_zero_over_images_and_over_three_seeds():
    ones, zeros = np.ones(60), np.zeros(60)
    mixed = np.where(np.arange(60) % 2, 1.0, -1.0)

    def verdict(*seeds):
        return paired_difference(seeds, [zeros] * len(seeds), IMAGES, ALL, resamples=50).verdict

    assert verdict(ones, ones, ones) == "higher"
    assert verdict(-ones, -ones, -ones) == "lower"
    assert verdict(3 * ones, 3 * ones, -ones) == "seeds differ in sign"
    assert verdict(mixed) == "within the interval"
    assert verdict(ones, 2 * ones, 9 * ones) == "within the spread of the seeds"
    few = IMAGES < 9
    assert paired_difference([ones], [zeros], IMAGES, few, resamples=50).verdict == "too few images"


def test_splits_of_instances_and_pairs():
    description = {
        "image": [0, 0, 1, 1],
        "hidden": [0.0, 0.3, 0.01, 0.6],
        "neighbours": [0.0, 0.1, 0.3, 0.31],
        "same_class": [0.0, 1.0, 0.2, 0.5],
        "level": ["high", None],
        "pair_same_class": [True, False, False],
    }
    assert {name: members.tolist() for name, members in instance_splits(description).items()} == {
        "all": [True] * 4,
        "hidden: none, 0-1 %": [True, False, True, False],
        "hidden: medium, 25-50 %": [False, True, False, False],
        "hidden: heavy, 50-100 %": [False, False, False, True],
        "no neighbour in the box": [True, False, False, False],
        "neighbours in up to 30 % of the box": [False, True, True, False],
        "neighbours in more than 30 % of the box": [False, False, False, True],
        "neighbours mostly of the same class": [False, True, False, True],
        "neighbours mostly of other classes": [False, False, True, False],
        "COCO-OLAC: high": [True, True, False, False],
    }
    assert {name: int(members.sum()) for name, members in pair_splits(description).items()} == {
        "all": 3,
        "pairs of one class": 1,
        "pairs of two classes": 2,
    }
    unknown = instance_splits({**description, "hidden": [None] * 4, "level": [None, None]})
    assert not any(name.startswith(("hidden", "COCO-OLAC")) for name in unknown)


def test_iou_of_empty_masks_and_means_without_values():
    from bcnet.ops.rle import box_rle

    empty, box, half = (box_rle(0, 0, side, 4, (8, 8)) for side in (0, 4, 2))
    assert iou(box, half) == 50 and iou(empty, box) == 0 and np.isnan(iou(empty, empty))
    assert means({"a": [1.0, np.nan], "b": [np.nan]}) == {"a": 1.0}
