from __future__ import annotations

import pickle

import pytest

from bcnet.data.records import ImageRecord, InstanceRecord
from bcnet.data.serialized_list import SerializedList


def test_serialized_list_gives_back_equal_items():
    items = [
        ImageRecord("a.jpg", 1, 4, 5, [InstanceRecord([0, 0, 2, 2.5], 3, segmentation=[[0, 0, 2, 0, 2, 2]])]),
        ImageRecord("b.jpg", "two", 4, 5, [], in_front=[(0, 1)], annotation_file="x.json"),
        {"counts": b"\x00" * 1000},
    ]
    kept = SerializedList(items)
    assert len(kept) == 3
    assert list(kept) == items
    assert kept[0] is not kept[0]
    assert list(pickle.loads(pickle.dumps(kept))) == items


def test_serialized_list_bounds():
    assert list(SerializedList([])) == []
    for index in (-1, 1):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 1 items"):
            SerializedList(["one"])[index]
