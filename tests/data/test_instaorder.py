"""Reader of InstaOrder: COCO's instances with the occlusion order of a second file."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from bcnet.data import dataset_files, load_dataset
from bcnet.data.source_masks import depth_order, source_masks


def coco():
    def annotation(number, x, image_id=1, **more):
        box = [x, 10, 20, 20]
        polygon = [x, 10, x + 20, 10, x + 20, 30, x, 30]
        entry = {"id": number, "image_id": image_id, "category_id": 1, "bbox": box, "segmentation": [polygon]}
        return {**entry, "area": 400, "iscrowd": 0, **more}

    crowd = {"iscrowd": 1, "segmentation": {"size": [60, 80], "counts": [0, 4800]}}
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 60, "width": 80} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            *[annotation(number, x) for number, x in [(90, 0), (70, 15), (80, 30), (60, 45)]],
            annotation(50, 0, **crowd),
            annotation(40, 0, image_id=2),
        ],
    }


def entry(*orders, image_id=1, instance_ids=(70, 80, 90)):
    return {
        "image_id": image_id,
        "instance_ids": list(instance_ids),
        "occlusion": [{"order": order, "count": 2} for order in orders],
        "depth": [{"order": "0<1", "overlap": False, "count": 2}],
    }


@pytest.fixture
def spec(tmp_path):
    def write(*entries, content=None):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "coco.json").write_text(json.dumps(coco()))
        content = {"annotations": list(entries)} if content is None else content
        (tmp_path / "orders.json").write_text(json.dumps(content))
        return f"instaorder:{tmp_path}/orders.json:{tmp_path}/coco.json:{tmp_path}/images"

    return write


def test_the_occluder_is_on_the_left_of_the_sign(spec, tmp_path):
    # Orders have positions in instance_ids: 0 is annotation 70. Positions in the record: 90, 70, 80, 60, crowd 50.
    records, info = load_dataset(spec(entry("0<2", "1<0")))
    first, second = records
    assert [instance.annotation_id for instance in first.instances] == [90, 70, 80, 60, 50]
    assert first.in_front == [(0, 1), (1, 2)]  # 70 lies on 90, 80 on 70
    assert first.unordered == (3,)  # 60 was not compared; crowds have no order
    assert second.in_front is None and second.unordered == ()
    assert info.annotated_occlusions and info.class_names == ("cat",)
    assert (info.annotation_file, info.image_root) == (f"{tmp_path}/coco.json", f"{tmp_path}/images")


@pytest.mark.parametrize("orders", [("0<1 & 1<0",), ("0<1", "1<0"), ("1<0&0<1", "0<1")])
def test_occlusion_both_ways_gives_both_pairs(spec, orders):
    first = load_dataset(spec(entry(*orders)))[0][0]
    assert sorted(first.in_front) == [(1, 2), (2, 1)]


def test_an_image_without_occlusions_has_a_known_order(spec):
    first = load_dataset(spec(entry(instance_ids=(60, 70, 80, 90))))[0][0]
    assert first.in_front == [] and first.unordered == ()
    assert not np.any(depth_order(first, range(4)))


def test_the_order_with_an_object_that_was_not_compared_is_unknown(spec):
    first = load_dataset(spec(entry("0<2")))[0][0]
    in_front, unknown = depth_order(first, range(4))
    assert np.argwhere(in_front).tolist() == [[0, 1]]
    expected = np.zeros((4, 4), dtype=bool)
    expected[3, :3] = expected[:3, 3] = True
    np.testing.assert_array_equal(unknown, expected)
    _, unknown = depth_order(first, [1, 3])  # of some of the objects
    np.testing.assert_array_equal(unknown, [[False, True], [True, False]])
    # By the published rule such neighbours count as occluders, beside the annotated ones; boxes overlap by 5 columns.
    areas = [0 if rle is None else int(coco_mask.area(rle)) for rle in source_masks(first).layers["occluder"]]
    assert areas == [100, 0, 100, 100]


def test_pairs_of_crowds_and_of_missing_instances_are_left_out(spec, caplog):
    first = load_dataset(spec(entry("0<1", "1<2", "2<3", instance_ids=(70, 50, 12345, 80))))[0][0]
    assert first.in_front == []
    assert "1 images without some instances that InstaOrder lists (image 1: [12345])" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (entry("0-1"), r"annotation at position 1: order must be a string like '0<2' or '0<2 & 2<0', got '0-1'"),
        (entry("1<1"), "got '1<1'"),
        (entry("0<1 & 1<2"), "got '0<1 & 1<2'"),
        (entry("0<1 & 0<1"), "got '0<1 & 0<1'"),
        (entry(None), "got None"),
        (entry("0<3"), "order '0<3' has a position beyond the 3 instance_ids"),
        (entry(instance_ids=(7, 7)), r"instance_ids must be a list of ids, each once, got \[7, 7\]"),
        ({**entry(), "occlusion": "0<1"}, "occlusion must be a list of objects with an order, got '0<1'"),
        ({"image_id": 1, "instance_ids": []}, "occlusion"),
        ({**entry(), "image_id": [1]}, r"image_id must be an integer or a string, got \[1\]"),
        (entry(image_id=2), "image 2 has an annotation already"),
    ],
)
def test_malformed_entries(spec, changed, message):
    with pytest.raises(ValueError, match=message) as error:
        load_dataset(spec(entry(image_id=2), changed))
    assert "orders.json" in str(error.value)


def test_other_files(spec):
    with pytest.raises(ValueError, match=r"orders\.json is not an InstaOrder file: it has no list of annotations"):
        load_dataset(spec(content=[1]))
    with pytest.raises(ValueError, match=r"must have the form 'instaorder:path/to/instaorder\.json:path/to/ann"):
        load_dataset("instaorder:a.json:images")


def test_the_built_in_names(monkeypatch):
    monkeypatch.setenv("BCNET_DATASETS", "/data")
    files = dataset_files("instaorder_val")
    assert files.paths == (
        "/data/coco/annotations/InstaOrder_val2017.json",
        "/data/coco/annotations/instances_val2017.json",
        "/data/coco/val2017",
    )
    assert files.image_root == "/data/coco/val2017"
