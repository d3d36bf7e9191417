"""SerializedList: records pickled into one shared buffer, so that data loader workers do not each copy them."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence

import numpy as np
import torch

_logger = logging.getLogger(__name__)


class SerializedList(Sequence):
    """A read-only list stored as one buffer of pickles, like detectron2's `NumpySerializedList`.

    Python objects are copied into every worker process as soon as a worker reads them, because reading changes their
    reference counts. A single buffer stays shared. It is a torch tensor, which torch also shares with spawned workers.
    Items are unpickled at each access.
    """

    def __init__(self, items: Sequence) -> None:
        pickles = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
        lengths = np.fromiter((len(data) for data in pickles), dtype=np.int64, count=len(pickles))
        self._ends = torch.from_numpy(np.cumsum(lengths))
        self._buffer = torch.from_numpy(np.frombuffer(b"".join(pickles), dtype=np.uint8).copy())
        _logger.info("%d records kept in %.1f MiB", len(pickles), len(self._buffer) / 2**20)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int):
        """The item at an index 0..len-1.

        Raises:
            IndexError: the index is out of range.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} items")
        start = int(self._ends[index - 1]) if index else 0
        # Safe to unpickle: these bytes were pickled in `__init__`, in this process or its parent.
        return pickle.loads(self._buffer[start : int(self._ends[index])].numpy().data)
