"""Warns once if no training instance has an occluder, which explains occluder losses of zero."""

from __future__ import annotations

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)

OCCLUDER_LOSSES = ("loss_occluder_mask", "loss_occluder_boundary")
# Number of log periods to watch.
PERIODS = 3


class OccluderReport:
    """Watches the first iterations; warns once if the occluder losses are zero because no instance has an occluder."""

    def __init__(self, log_period: int) -> None:
        self._remaining = PERIODS * log_period
        self._instances = 0.0
        self._with_occluder = 0.0
        self._loss = 0.0
        self._watched = False

    def add(self, values: Mapping[str, float]) -> None:
        """Adds one iteration's losses and, where they are known, counts of instances, over all processes."""
        present = [values[name] for name in OCCLUDER_LOSSES if name in values]
        if self._remaining <= 0 or not present:
            return
        self._watched = True
        self._loss += sum(map(abs, present))
        self._instances += values.get("instances", 0.0)
        self._with_occluder += values.get("instances_with_occluder", 0.0)
        self._remaining -= 1
        if self._remaining == 0:
            self.finish()

    def finish(self) -> None:
        """Warns, if the losses so far give a reason; afterwards never again."""
        self._remaining = 0
        if not self._watched or self._loss != 0.0 or self._with_occluder:
            return
        self._watched = False
        counted = f": of the {round(self._instances)} instances so far, 0 had an occluder" if self._instances else ""
        logger.warning(
            "the occluder losses are exactly zero because no instance has an occluder%s. An instance has one where "
            "another object's box overlaps its box (IoU above 0.05), or where the annotations say so (with "
            "MODEL.BILAYER.OCCLUDER_TARGET 'front' only there and where objects are pasted). On such data the occluder "
            "layer is not trained.",
            counted,
        )
