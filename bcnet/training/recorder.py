"""Records losses and metrics of training: checks each iteration's losses and logs them, one iteration later."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from bcnet.distributed import world_size
from bcnet.training.occluder_report import OccluderReport
from bcnet.training.periodic import is_due
from bcnet.training.run_log import RunLog
from bcnet.training.step_values import StepValues, describe_images


class Recorder:
    """Records the values of every iteration, read one iteration later to avoid host-device synchronisation.

    Use as a context manager, on every process: a loss that is not finite is an error on all of them.
    """

    def __init__(self, log: RunLog | None, *, log_period: int) -> None:
        """
        Args:
            log: of the run; None on all but the main process.
            log_period: iterations between two lines of the log.
        """
        self.log = log
        self.log_period = log_period
        self.images: Sequence[str] = ()  # of the last iteration, as readable names
        self._occluders = OccluderReport(log_period)
        self._pending: StepValues | None = None
        self._started = 0.0

    def __enter__(self) -> Recorder:
        if self.log is not None:
            self.log.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        if self.log is not None:
            self.log.__exit__(*exception)

    def start_iteration(self) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def add(
        self,
        iteration: int,
        batches: Sequence[list[dict]],
        values: Mapping[str, Tensor | float],
        *,
        rate: float,
        data_seconds: float,
    ) -> None:
        """Adds the values of an iteration, stops the clock, and records the previous iteration.

        Args:
            iteration: 0..max_iter-1.
            batches: of the iteration.
            values: losses and counts of this process, scalars by name.
            rate: the learning rate.
            data_seconds: waiting time for the batches.

        Raises:
            NonFiniteLossError: in the previous iteration.
        """
        self.images = [name for batch in batches for name in describe_images(batch)]
        values = {**values, "data_time": data_seconds}
        current = StepValues.send(values, iteration=iteration, images=self.images, rate=rate)
        self.flush()
        current.seconds = time.perf_counter() - self._started
        self._pending = current

    def flush(self) -> None:
        """Records the pending iteration; waits for its values.

        Raises:
            NonFiniteLossError: a value is not finite.
        """
        if self._pending is not None:
            step, self._pending = self._pending, None
            self._record(step)

    def finish(self) -> None:
        """Records and logs all that is pending, after the last iteration.

        Raises:
            NonFiniteLossError: as `flush`.
        """
        self.flush()
        self._occluders.finish()
        if self.log is not None:
            self.log.write()

    def _record(self, step: StepValues) -> None:
        step.require_finite()
        values = step.read()
        for name in ("instances", "instances_with_occluder"):
            values[name] *= world_size()  # of all processes
        self._occluders.add(values)
        if self.log is not None:
            self.log.add(step.iteration, {**values, "time": step.seconds}, step.rate)
            if is_due(step.iteration, self.log_period):
                self.log.write()

    def write_metrics(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of an evaluation, if there are any."""
        if self.log is not None and metrics:
            self.log.write_record(iteration, dict(metrics))

    def write_pictures(self, iteration: int, pictures: Sequence[np.ndarray]) -> None:
        """Logs pictures of training images, uint8 [H, W, 3] RGB."""
        if self.log is not None:
            self.log.write_pictures(iteration, "training", pictures)
