"""Paired differences of two arms over the same instances, with a bootstrap interval over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, t

MIN_IMAGES = 10  # for a verdict


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of a metric between two arms, the first minus the second.

    Attributes:
        mean: over instances; over seeds too, where there are several.
        low, high: bounds of the 95 % interval; NaN for one image.
        by_seed: mean over instances of each seed.
        instances, images: number of both.
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    instances: int
    images: int

    @property
    def seed_margin(self) -> float:
        """Half the width of the 95 % t interval of the mean over seeds; NaN for one seed."""
        seeds = len(self.by_seed)
        return float(t.ppf(0.975, seeds - 1) * np.std(self.by_seed, ddof=1) / seeds**0.5) if seeds > 1 else math.nan

    @property
    def verdict(self) -> str:
        """ "higher" or "lower" if neither the interval over images nor, of at least three seeds, the one over seeds
        includes zero.

        A bootstrap over fewer than ten images gives intervals that are too narrow, and no verdict.
        """
        if self.images < MIN_IMAGES:
            return "too few images"
        if not (self.low > 0 or self.high < 0):
            return "within the interval"
        if any(value * self.mean <= 0 for value in self.by_seed):
            return "seeds differ in sign"
        if len(self.by_seed) < 3:
            return f"{'higher' if self.mean > 0 else 'lower'}, {len(self.by_seed)} seed(s)"
        if abs(self.mean) <= self.seed_margin:
            return "within the spread of the seeds"
        return "higher" if self.mean > 0 else "lower"


def paired_difference(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    images: np.ndarray,
    members: np.ndarray,
    *,
    resamples: int = 2000,
) -> PairedDifference | None:
    """The paired difference over the instances of a split.

    An instance's difference is averaged over the seeds first. Images are then drawn with replacement, each with all its
    instances, which are not independent of each other (`scipy.stats.bootstrap`, percentile interval of the mean over
    instances). The interval tells how far the result depends on the test images; it contains the scatter of the
    trainings that were done, but a single seed says nothing of others.

    Args:
        first, second: per seed, float [instances], NaN where there is no value.
        images: int [instances], the image of each instance.
        members: bool [instances], those of the split.
        resamples: of the bootstrap.

    Returns:
        None if no instance has a value in both arms.

    Raises:
        ValueError: another number of seeds, none, or of instances.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"both arms need the same seeds, at least one; got {len(first)} and {len(second)}")
    by_seed = np.stack(first) - np.stack(second)
    if by_seed.shape[1:] != images.shape or images.shape != members.shape:
        raise ValueError(f"got {by_seed.shape[1]} values, {len(images)} images and {len(members)} members")
    chosen = members & np.isfinite(by_seed).all(axis=0)
    if not chosen.any():
        return None
    by_seed, images = by_seed[:, chosen], images[chosen]
    difference = by_seed.mean(axis=0)
    _, index = np.unique(images, return_inverse=True)
    sums, counts = np.bincount(index, weights=difference), np.bincount(index).astype(float)
    low = high = math.nan
    if len(sums) > 1:
        interval = bootstrap(
            (sums, counts),
            lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    seeds = tuple(float(values.mean()) for values in by_seed)
    return PairedDifference(float(difference.mean()), low, high, seeds, int(chosen.sum()), len(sums))
