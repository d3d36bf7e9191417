from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from amodal_samples import SIZE, SQUARES, pixels, write
from pycocotools import mask as coco_mask

from bcnet.data import load_dataset
from bcnet.data.coco_classes import COCO_CLASSES
from bcnet.data.occluded_coco import load_occluded_coco


def entry(file_name="000000000139.jpg", class_name="chair", index=0, **changes):
    rle = coco_mask.encode(np.asfortranarray(pixels([SQUARES[index]]).astype(np.uint8)))
    return [file_name, class_name, 3, [0.5, 1, 2, 3], {**rle, **changes}]


def as_text(entries):
    return [[*e[:4], {**e[4], "counts": e[4]["counts"].decode()}] for e in entries]


@pytest.fixture
def save(tmp_path):
    def path(content, name="occluded.pkl", protocol=4):
        data = json.dumps(content).encode() if name.endswith(".json") else pickle.dumps(content, protocol)
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return path


def test_the_classes_are_those_of_coco():
    assert len(COCO_CLASSES) == 80
    assert list(COCO_CLASSES) == sorted(COCO_CLASSES)
    known = {1: "person", 11: "fire hydrant", 13: "stop sign", 44: "bottle", 46: "wine glass", 90: "toothbrush"}
    assert known.items() <= COCO_CLASSES.items()
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & COCO_CLASSES.keys()


@pytest.mark.parametrize("protocol", [0, 2, 3, 5])
def test_pickle(save, tmp_path, protocol):
    entries = [entry(), entry("000000000009.jpg", "person", 1), entry(index=2)]
    # numpy's numbers and tuples, in case the boxes were computed
    entries[1][3] = [np.int64(3), np.float64(4), 5, 6]
    entries[2] = tuple(entries[2])
    records, info = load_dataset(f"occluded_coco:{save(entries, protocol=protocol)}:{tmp_path}")
    assert (info.num_classes, info.class_names[0], info.category_ids[-1]) == (80, "person", 90)
    assert [(r.image_id, r.height, r.width) for r in records] == [(9, *SIZE), (139, *SIZE)]
    assert records[1].file_name == str(tmp_path / "000000000139.jpg")
    assert [i.bbox for i in records[1].instances] == [[4, 10, 20, 20], [32, 10, 20, 20]]
    assert [info.class_names[i.category] for r in records for i in r.instances] == ["person", "chair", "chair"]
    np.testing.assert_array_equal(pixels(records[0].instances[0].segmentation), pixels([SQUARES[1]]))
    assert records[0].in_front is None


def test_json(save, tmp_path):
    entries = [entry(), entry(index=1)]
    text = save(as_text(entries), "list.json")
    (record,), _ = load_occluded_coco(text, "images")
    (same,), _ = load_occluded_coco(save(entries), "images")
    assert [i.bbox for i in record.instances] == [i.bbox for i in same.instances]


def test_json_in_the_format_of_coco(tmp_path):
    content = {
        "images": [{"id": 4, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 62, "name": "chair"}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 62, "bbox": [4, 10, 20, 20]}],
    }
    (record,), info = load_occluded_coco(*write(tmp_path, content))
    assert (record.image_id, info.class_names) == (4, ("chair",))


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "content, message",
    [
        ([entry()[:4]], r"entry 0: it must be \[file name, class name, number, box, RLE\]"),
        ([entry(), entry(class_name="unicorn")], "annotation 1: category_id 'unicorn' is not in the file's categories"),
        ([entry(file_name=5)], "entry 0: file name and class name must be strings, got 5 and 'chair'"),
        ([entry(size=None)], "entry 0: its mask must be an RLE with its size"),
        ([entry(counts=b"xx")], "entry 0: "),
        (
            [entry(), [*entry()[:4], entry(size=[60, 40])[4]]],
            r"annotation 1: segmentation is an RLE of size \[60, 40\]",
        ),
        ([], "must hold a list of objects"),
        (["x"], "entry 0: it must be"),
        ([entry(), Hostile()], "is not a pickle of plain lists and numbers: .*print"),
    ],
)
def test_malformed(save, content, message, capsys):
    with pytest.raises(ValueError, match=message) as error:
        load_occluded_coco(save(content), "images")
    assert "occluded.pkl" in str(error.value)
    assert capsys.readouterr().out == ""


def test_damaged_pickle(save, tmp_path):
    path = save([entry()])
    (tmp_path / "occluded.pkl").write_bytes((tmp_path / "occluded.pkl").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"occluded.pkl is not a pickle of plain lists"):
        load_occluded_coco(path, "images")
