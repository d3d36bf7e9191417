"""Training batches of each iteration, robust to data loader workers ended by a shutdown signal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from bcnet.distributed import world_size
from bcnet.training.interruption import Interruption

# Loader workers may receive a signal to the process group slightly earlier than this process.
SAME_SIGNAL_SECONDS = 0.2


class BatchStream:
    """Iterates over the batches of each iteration.

    Attributes:
        seconds: waiting time of the last `fetch`.
    """

    def __init__(self, loader: Iterable[list[dict]], *, accumulate_steps: int, interruption: Interruption) -> None:
        """Starts the loader's workers and waits for the first batch.

        Args:
            loader: this process' batches; lists of samples.
            accumulate_steps: batches per iteration.
            interruption: its signal may end the workers.
        """
        batches = iter(loader)
        first = list(itertools.islice(batches, 1))
        self._batches = itertools.chain(first, batches)
        self.accumulate_steps = accumulate_steps
        self.interruption = interruption
        self.seconds = 0.0
        interruption.defer_worker_errors()

    def fetch(self) -> list[list[dict]] | None:
        """The batches of an iteration; None if a shutdown signal has ended the loader's workers."""
        started = time.perf_counter()
        try:
            self.interruption.raise_worker_errors()
            return [next(self._batches) for _ in range(self.accumulate_steps)]
        # OSError and EOFError: a batch was ready, but the worker that owns its shared memory has exited.
        except (RuntimeError, OSError, EOFError):
            time.sleep(SAME_SIGNAL_SECONDS)
            # Several processes must stop after the same iteration, and this one cannot run the next.
            if not self.interruption.signal_number or world_size() > 1:
                raise
            return None
        finally:
            self.seconds = time.perf_counter() - started
