from __future__ import annotations

import logging

import pytest
from amodal_samples import BOXES, IMAGES, SQUARES, kins_2019, kins_2020, rle, visible, visible_box, write

from bcnet.data import load_dataset
from bcnet.data.kins import load_kins

CATEGORIES = [
    {"id": 4, "name": "car", "supercategory": "vehicles"},
    {"id": 1, "name": "cyclist", "supercategory": "Living Thing"},
]


def content(annotations, **changes):
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations, **changes}


@pytest.fixture
def load(tmp_path):
    """The only record of a KINS file with these annotations."""

    def record(*annotations):
        return load_kins(*write(tmp_path, content(annotations)))[0][0]

    return record


def test_file_of_2020(tmp_path):
    paths = write(tmp_path, content([kins_2020(0), kins_2020(1), kins_2020(2)]))
    (record,), info = load_dataset("kins:{}:{}".format(*paths))
    assert (info.class_names, info.category_ids) == (("cyclist", "car"), (1, 4))
    assert info.name == "kins:{}:{}".format(*paths)
    for index, instance in enumerate(record.instances):
        assert (instance.amodal, instance.amodal_bbox) == ([SQUARES[index]], BOXES[index])
        assert instance.bbox == visible_box(index)
        assert (instance.category, instance.iscrowd, instance.annotation_id) == (1, False, index + 1)
    assert record.instances[1].segmentation == [[24, 10, 38, 10, 38, 30, 24, 30]]
    assert record.in_front == [(1, 0), (2, 0), (2, 1)]
    assert record.annotation_file == paths[0]


def test_file_of_2019_has_no_order(load):
    record = load(kins_2019(0), kins_2019(1))
    assert record.in_front is None
    second = record.instances[1]
    assert (second.bbox, second.amodal_bbox, second.amodal) == ([24, 10, 14, 20], BOXES[1], [SQUARES[1]])
    assert second.segmentation == kins_2019(1)["inmodal_seg"]


@pytest.mark.parametrize(
    "ranks, in_front",
    [
        ([(1, 1), (2, 2), (1, 3)], [(2, 0)]),  # the second is of another cluster
        ([(0, 0), (0, 0), (3, 1)], []),  # instances that overlap no other
        ([(1, 2), (1, 2), (1, 1)], [(0, 2), (1, 2)]),  # equal ranks do not occlude each other
        ([(1, 1), (1, 2), (1, None)], None),
        ([(1, None), (None, 2), (None, None)], None),
    ],
)
def test_order_in_clusters(load, ranks, in_front, caplog):
    record = load(*(kins_2020(i, oco_id=cluster, ico_id=rank) for i, (cluster, rank) in enumerate(ranks)))
    assert record.in_front == in_front
    assert ("only some objects have oco_id and ico_id" in caplog.text) == (ranks[0] == (1, 1) and in_front is None)


def test_hidden_and_malformed_objects_are_counted(load, caplog):
    with caplog.at_level(logging.WARNING):
        record = load(
            kins_2020(0),
            kins_2020(1, i_segm=[], i_bbox=[0, 0, 0, 0]),
            kins_2020(2, i_segm=[[1, 1, 2, 2]], i_bbox=[-1, -1, 3, 3], id=12),
            kins_2020(0, a_segm=[[4, 5]], id=13),
            kins_2020(0, a_segm=[], id=14),
            kins_2020(1, i_bbox=[-1, 10, 14, 20], a_bbox=[18, 10, -2, 20], id=15),
        )
    assert [instance.annotation_id for instance in record.instances] == [1, 2, 12, 15]
    hidden = record.instances[1]
    assert (hidden.segmentation, hidden.amodal, hidden.bbox) == (None, [SQUARES[1]], [18, 10, 0, 0])
    assert record.instances[2].segmentation is None
    mended = record.instances[3]
    assert (mended.bbox, mended.amodal_bbox) == ([24, 10, 14, 20], BOXES[1])
    assert len(caplog.records) == 1
    for text in (
        "2 objects without a visible pixel, fully hidden",
        "2 annotations without an amodal mask in the image, dropped",
        "1 boxes malformed or starting outside the image, replaced by the box of the visible mask",
        "1 boxes malformed or starting outside the image, replaced by the box of the amodal mask",
        "1 polygons of visible mask with fewer than 3 points",
    ):
        assert text in caplog.text


def test_positions_in_front_refer_to_the_remaining_instances(load):
    record = load(kins_2020(0), kins_2020(1, a_segm=None), kins_2020(2))
    assert [instance.annotation_id for instance in record.instances] == [1, 3]
    assert record.in_front == [(1, 0)]


def test_hidden_in_the_file_of_2019(load):
    record = load(kins_2019(0), kins_2019(1, inmodal_seg=rle(visible(0) & False), inmodal_bbox=[0, 0, 0, 0]))
    assert record.instances[1].segmentation is None
    assert record.instances[1].amodal == [SQUARES[1]]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"a_segm": ..., "i_segm": ...}, r"neither a_segm \(KINS of 2020\) nor inmodal_seg \(2019\), its keys are"),
        ({"a_segm": "mask.png"}, "amodal mask must be a list of polygons .* or an RLE, got 'mask.png'"),
        ({"a_segm": [1, 2, 3]}, "amodal mask must be a list of polygons"),
        ({"i_segm": {"size": [60, 40], "counts": [2400]}}, r"visible mask is an RLE of size \[60, 40\]"),
        ({"i_segm": [["a"] * 6], "i_bbox": None}, "must be a list of polygons"),
        ({"i_segm": [[1, 1, 9, 1, 9, "a"]], "i_bbox": None}, "a polygon must be a flat list of numbers"),
        ({"oco_id": "first"}, "oco_id must be a finite number, got 'first'"),
        ({"category_id": 3}, "category_id 3 is not in the file's categories"),
        ({"category_id": ...}, "it has no category_id"),
        ({"image_id": ...}, "it has no image_id"),
        ({"id": 1}, "its id is used twice"),
    ],
)
def test_malformed_annotation_names_file_id_and_value(tmp_path, changes, message):
    annotations = [kins_2020(0), kins_2020(1, **changes)]
    with pytest.raises(ValueError, match=message) as error:
        load_kins(*write(tmp_path, content(annotations)))
    assert "annotations.json is malformed:" in str(error.value)
    assert "annotation 2: " in str(error.value) or "id" in changes or "image_id" in changes


@pytest.mark.parametrize("missing", ["images", "categories"])
def test_file_that_is_not_a_kins_json(tmp_path, missing):
    with pytest.raises(ValueError, match=f"annotations.json is not a COCO file: it has no list of {missing}"):
        load_kins(*write(tmp_path, content([], **{missing: None})))
