"""What every reader of annotations produces, whatever file format it reads.

Letters: K classes.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class InstanceRecord:
    """One annotated object.

    A segmentation is a COCO json value: a list of polygons (flat x, y lists in pixels), or an RLE dict,
    compressed or not.

    Attributes:
        bbox: [x, y, width, height] in absolute pixels, as in the json.
        category: 0..K-1.
        iscrowd: a region of many objects; neither trained on nor an occluder.
        segmentation: the visible mask; None where the file has none.
        occluder: the file's own occluder mask (`bg_object_segmentation`). None: it is to be derived.
            An empty list: the file says that there is none.
        amodal: the whole object's mask, hidden parts included, in data sets that have it.
        amodal_bbox: box of the amodal mask, like `bbox`; None takes `bbox`.
        annotation_id: the file's id, for messages.
    """

    bbox: Sequence[float]
    category: int
    iscrowd: bool = False
    segmentation: list | dict | None = None
    occluder: list | dict | None = None
    amodal: list | dict | None = None
    amodal_bbox: Sequence[float] | None = None
    annotation_id: int | str | None = None


@dataclass(slots=True)
class ImageRecord:
    """One image with its objects.

    Attributes:
        file_name: path of the image file.
        image_id: the file's id.
        height, width: pixels, after the EXIF orientation has been applied.
        instances: the objects, in the file's order.
        in_front: pairs (i, j) of positions in `instances`: j lies in front of i. None: the order is not known.
        annotation_file: where the record comes from, for messages.
    """

    file_name: str
    image_id: int | str
    height: int
    width: int
    instances: list[InstanceRecord] = field(default_factory=list)
    in_front: list[tuple[int, int]] | None = None
    annotation_file: str = ""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set beside its images.

    Attributes:
        name: the name or spec it was loaded by.
        class_names: names of the classes 0..K-1.
        category_ids: the file's category id of each class 0..K-1.
        annotation_file: path of the annotation file.
        image_root: folder of the images.
    """

    name: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    annotation_file: str
    image_root: str

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class SerializedList(Sequence):
    """A read-only list kept as one buffer of pickles, as detectron2's `NumpySerializedList` does.

    Python objects are copied into every worker process as soon as a worker reads them, because reading
    changes their reference counts. One buffer stays shared. It is a torch tensor, which torch also shares
    with workers that are spawned rather than forked. Items are unpickled anew at each access.
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
        # These bytes were pickled a few lines above, in this process or its parent.
        return pickle.loads(memoryview(self._buffer[start : int(self._ends[index])].numpy()))
