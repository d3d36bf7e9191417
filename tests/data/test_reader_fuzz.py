"""Fuzzing of the readers: any content gives either records or a ValueError that names the file."""

from __future__ import annotations

import json
import pickle

import pytest
from amodal_samples import IMAGES, cocoa, d2sa, kins_2019, kins_2020, region, rle, visible
from coco_samples import annotation, square
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_damage import damaged, values

from bcnet.data import DatasetInfo, DatasetMapper, ImageRecord
from bcnet.data.augmentation import Augmentation, ResizeShortestEdge
from bcnet.data.coco import load_coco
from bcnet.data.cocoa import load_cocoa
from bcnet.data.kins import load_kins
from bcnet.data.occluded_coco import load_occluded_coco
from bcnet.data.source_masks import missing_masks, source_masks
from bcnet.data.transforms import Transform

LEAVE_SIZE = Augmentation(ResizeShortestEdge((0,), 9999))
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 4, "name": "car"}, {"id": 9, "name": "tea"}]


def listed(annotations):
    return {"images": [*IMAGES, {**IMAGES[0], "id": 2}], "categories": CATEGORIES, "annotations": annotations}


SOUND = {
    "coco": (
        load_coco,
        listed(
            [
                annotation(1, 1, [4, 10, 20, 20], depth=1, amodal_segmentation=[square(4, 10, 22)]),
                annotation(2, 1, [18, 10, 20, 20], depth=2, segmentation=rle(visible(1)), amodal_bbox=[18, 10, 22, 22]),
                annotation(3, 1, [18, 10, 20, 20], iscrowd=1, segmentation={"size": [40, 60], "counts": [0, 2400]}),
                annotation(4, 2, [1, 1, 9, 9], bg_object_segmentation=[square(2, 2, 5)], ignore=0),
            ]
        ),
    ),
    "kins": (load_kins, listed([kins_2020(0), kins_2020(1), kins_2019(2)])),
    "cocoa": (load_cocoa, cocoa([region(i) for i in range(3)], depth_constraint="1-2,2-3")),
    "single images": (load_cocoa, [{**cocoa([region(1), region(0, isStuff=1)])["annotations"][0], "image_id": 4}]),
    "d2sa": (load_cocoa, listed([d2sa(0), d2sa(1, order=5), d2sa(2)])),
    "occluded": (
        load_occluded_coco,
        [
            ["000000000139.jpg", "chair", 3, [1, 2, 3, 4], rle(visible(1))],
            ["a.jpg", "cup", 4, [1, 2, 3, 4], rle(visible(0))],
        ],
    ),
}


def check(reader, path):
    try:
        records, info = reader(str(path), str(path.parent))
    except ValueError as error:
        assert path.name in str(error)
        return
    assert isinstance(info, DatasetInfo)
    assert all(isinstance(record, ImageRecord) for record in records)
    for record in records:
        classes = [instance.category for instance in record.instances]
        assert all(0 <= category < info.num_classes for category in classes)
        count = len(record.instances)
        assert all(0 <= i < count and 0 <= j < count and i != j for i, j in record.in_front or ())
        for target in ("visible", "amodal"):
            missing_masks(record, target)
            try:
                source_masks(record, target)
                if record.height * record.width < 10_000:
                    transform = Transform((record.height, record.width), (70, 50), "horizontal")
                    targets = DatasetMapper(augmentation=LEAVE_SIZE, mask_target=target).targets(record, transform)
                    assert targets.boxes.isfinite().all()
            except ValueError as error:
                assert path.name in str(error)


@pytest.mark.parametrize("format", SOUND)
def test_the_undamaged_files_are_valid(tmp_path, format):
    reader, content = SOUND[format]
    path = tmp_path / "fuzz.json"
    path.write_text(json.dumps(content))
    if format == "kins":  # a mixture of both years, one of which has no order
        content["annotations"].pop()
    records, _ = reader(str(path), str(tmp_path))
    assert sum(len(record.instances) for record in records) > 1


@pytest.mark.parametrize("format", SOUND)
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_content(tmp_path_factory, format, data):
    reader, content = SOUND[format]
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(data.draw(damaged(content))))
    check(reader, path)


@pytest.mark.parametrize("reader", [load_coco, load_kins, load_cocoa, load_occluded_coco])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=st.one_of(values, st.dictionaries(st.sampled_from(["images", "categories", "annotations"]), values)))
def test_any_json(tmp_path_factory, reader, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(content))
    check(reader, path)


@pytest.mark.parametrize("reader", [load_coco, load_kins, load_cocoa, load_occluded_coco])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=60))
def test_any_bytes(tmp_path_factory, reader, data):
    for suffix in (".json", ".pkl"):
        path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
        path.write_bytes(data)
        check(reader, path)


@pytest.mark.parametrize("reader", [load_coco, load_kins, load_cocoa, load_occluded_coco])
def test_brackets_without_end(tmp_path, reader):
    path = tmp_path / "fuzz.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"fuzz.json is not valid JSON"):
        reader(str(path), str(tmp_path))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_pickle(tmp_path_factory, data):
    content = data.draw(damaged(SOUND["occluded"][1]))
    raw = bytearray(pickle.dumps(content))
    for _ in range(data.draw(st.integers(0, 2))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzz.pkl"
    path.write_bytes(raw)
    check(load_occluded_coco, path)
