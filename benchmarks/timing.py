"""Interleaved timing."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

from torch.utils.benchmark import timer


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = timer,
) -> dict[str, list[float]]:
    """Seconds of each call of several ways to do the same work, taken in turns.

    In turns, because a machine's clock rate and its other load change over seconds: calls that follow each other share
    them, and their ratio stays. torch's own `Timer` repeats one statement on end and warms up before every
    measurement; its clock, which waits for the accelerator, is used here. Every other round goes backwards, so that
    no way always comes first.

    Args:
        ways: functions of no arguments, by name.
        repeats: timed calls of each.
        warm_up: calls of each that come first and are not timed.
        clock: gives seconds; see `BenchmarkSettings.clock`.

    Raises:
        ValueError: fewer than one repetition.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    for _ in range(warm_up):
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    # Nobody pays for the garbage of the way before, nor for a collector that looks through all that is loaded.
    gc.collect()
    gc.freeze()
    try:
        for repeat in range(repeats):
            for name in list(ways) if repeat % 2 == 0 else reversed(list(ways)):
                gc.collect()
                start = clock()
                ways[name]()
                seconds[name].append(clock() - start)
    finally:
        gc.unfreeze()
    return seconds
