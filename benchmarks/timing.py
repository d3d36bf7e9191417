"""Interleaved timing of several implementations of one task."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

from torch.utils.benchmark import timer


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = timer,
) -> dict[str, list[float]]:
    """Seconds of each call of several variants of the same task, interleaved.

    Interleaved, because a machine's clock rate and load change over seconds: consecutive calls see similar conditions,
    which keeps their ratio stable. torch's `Timer` repeats one statement and warms up before every measurement; only
    its clock, which synchronises with the accelerator, is used here. The order is reversed in every other round, so
    that no variant always comes first.

    Args:
        variants: functions of no arguments, by name.
        repeats: number of timed calls of each.
        warm_up: number of initial, untimed calls of each.
        clock: function that returns seconds; see `BenchmarkSettings.clock`.

    Raises:
        ValueError: fewer than one repetition.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    for _ in range(warm_up):
        for variant in variants.values():
            variant()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    # GC runs before each timing so that its cost is not attributed to a variant; existing objects are frozen.
    gc.collect()
    gc.freeze()
    try:
        for repeat in range(repeats):
            for name in list(variants) if repeat % 2 == 0 else reversed(list(variants)):
                gc.collect()
                start = clock()
                variants[name]()
                seconds[name].append(clock() - start)
    finally:
        gc.unfreeze()
    return seconds
