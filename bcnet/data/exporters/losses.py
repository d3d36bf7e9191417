"""What formats other than COCO cannot hold of a record's objects, counted for messages."""

from __future__ import annotations

from collections import Counter

from bcnet.data.exporters.coco import is_depth_order
from bcnet.data.records import ImageRecord


def count_losses(record: ImageRecord, lost: Counter[str], *, flags: bool = False, sequence: bool = False) -> None:
    """Counts amodal masks, hidden fractions, flags and the order of the objects of an image.

    Args:
        record: the image.
        lost: counts by what is lost, added to.
        flags: the format has flags of objects, such as ``occluded``.
        sequence: the format holds an order that a sequence of objects says.
    """
    objects = [instance for instance in record.instances if not instance.iscrowd]
    lost["amodal masks"] += sum(bool(instance.amodal) for instance in objects)
    lost["hidden fractions of objects"] += sum(instance.hidden_fraction is not None for instance in objects)
    if not flags:
        lost["flags 'occluded' of objects"] += sum(instance.occluded is not None for instance in objects)
    if record.in_front is None:
        return
    if not sequence:
        lost["depth orders of images"] += 1
    elif record.unordered_pairs or not is_depth_order(record):
        lost["depth orders of images that no sequence of shapes can say"] += 1
