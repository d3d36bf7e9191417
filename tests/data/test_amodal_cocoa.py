from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from amodal_samples import BOXES, IMAGES, SIZE, SQUARES, cocoa, d2sa, pixels, region, rle, visible, visible_box, write
from PIL import Image

from bcnet.data import load_dataset
from bcnet.data.cocoa import load_cocoa
from bcnet.evaluation import GroundTruth, evaluate_results

ALL = [(1, 0), (2, 0), (2, 1)]


@pytest.fixture
def load(tmp_path):
    """The only record of a COCOA file with these regions."""

    def record(*regions, **changes):
        return load_cocoa(*write(tmp_path, cocoa(list(regions), **changes)))[0][0]

    return record


def d2sa_content(*annotations):
    return {"images": IMAGES, "categories": [{"id": 9, "name": "tea"}], "annotations": list(annotations)}


def check_instances(record):
    for index, instance in enumerate(record.instances):
        np.testing.assert_array_equal(pixels(instance.segmentation), visible(index))
        np.testing.assert_array_equal(pixels(instance.amodal), pixels([SQUARES[index]]))
        assert (instance.bbox, instance.amodal_bbox) == (visible_box(index), BOXES[index])
        assert (instance.category, instance.iscrowd) == (0, False)


def test_merged_file(tmp_path):
    paths = write(tmp_path, cocoa([region(i) for i in range(3)], depth_constraint="1-2,2-3"))
    (record,), info = load_dataset("cocoa:{}:{}".format(*paths))
    assert (info.class_names, info.category_ids) == (("object",), (1,))
    check_instances(record)
    assert record.instances[0].segmentation == [SQUARES[0]]
    assert [instance.annotation_id for instance in record.instances] == [f"7 region {place}" for place in (1, 2, 3)]
    assert record.in_front == [(1, 0), (2, 1)]


@pytest.mark.parametrize(
    "constraint, orders, in_front",
    [
        (None, (1, 2, 3), ALL),
        (None, (3, 1, 2), [(0, 1), (0, 2), (2, 1)]),
        (None, (5, 9, 11), ALL),  # regions were taken out of the file
        ("1-2,1-3,2-3,1-2", (1, 2, 3), ALL),
        ("1-2,2-3", (..., ..., ...), [(1, 0), (2, 1)]),
        ("2-3, 1-2", (1, 2, 3), [(2, 1), (1, 0)]),
        (None, (..., ..., ...), None),
    ],
)
def test_order(load, caplog, constraint, orders, in_front):
    regions = [region(i, order=order) for i, order in enumerate(orders)]
    assert load(*regions, depth_constraint=constraint).in_front == in_front
    assert caplog.text == ""


@pytest.mark.parametrize(
    "constraint, orders, in_front, counted",
    [
        ("1-2,2-4", (1, 2, 3), ALL, "1 images whose depth_constraint does not fit"),
        ("0-1", (1, 2, 3), ALL, "depth_constraint does not fit"),
        ("1-2,2-1,2-3", (1, 2, 3), ALL, "depth_constraint does not fit"),
        ("2-1,2-3", (1, 2, 3), ALL, "depth_constraint does not fit"),  # against the orders
        ("", (1, 2, 3), ALL, "depth_constraint does not fit"),  # though parts of two regions are hidden
        ("1-2", (1, 2, 3), ALL, "depth_constraint does not fit"),
        ("9-9", (..., ..., ...), None, "depth_constraint does not fit"),
        (None, (1, 2, ...), None, "1 images in which only some objects have an order"),
        (None, (1, 2, 2), None, "1 images in which objects have equal order"),
    ],
)
def test_an_inconsistent_order_is_not_used(load, caplog, constraint, orders, in_front, counted):
    regions = [region(i, order=order) for i, order in enumerate(orders)]
    assert load(*regions, depth_constraint=constraint).in_front == in_front
    assert counted in caplog.text


def test_no_occlusions(load, caplog):
    assert load(region(0), region(2, visible_mask=...), depth_constraint="").in_front == []
    assert caplog.text == ""


def test_stuff_is_a_crowd_and_not_part_of_the_order(load):
    record = load(region(0, isStuff=1), region(1), region(2), depth_constraint="1-2,2-3")
    assert [instance.iscrowd for instance in record.instances] == [True, False, False]
    assert record.instances[0].bbox == BOXES[0]
    assert record.in_front == [(2, 1)]


def test_regions_without_pixels_are_dropped_and_hidden_ones_kept(load, caplog):
    outside = [200, 10, 220, 10, 220, 30]
    with caplog.at_level(logging.WARNING):
        record = load(
            region(0),
            region(1, segmentation=outside),
            region(2, visible_mask=rle(visible(0) & False)),
            region(1, segmentation=[1, 2, 3, 4], order=4),
            depth_constraint="1-2,1-3,2-3,3-4",
        )
    assert [instance.annotation_id for instance in record.instances] == ["7 region 1", "7 region 3"]
    assert (record.instances[1].segmentation, record.instances[1].bbox) == (None, [32, 10, 0, 0])
    assert record.in_front == [(1, 0)]
    assert "2 annotations without an amodal mask in the image, dropped" in caplog.text
    assert "1 objects without a visible pixel, fully hidden" in caplog.text


def test_only_the_first_annotator_of_an_image_is_read(tmp_path, caplog):
    content = cocoa([region(0)])
    content["annotations"].append({**content["annotations"][0], "id": 8, "regions": [region(0), region(1)]})
    records, _ = load_cocoa(*write(tmp_path, content))
    assert [len(record.instances) for record in records] == [1]
    assert "1 further annotations of an image, dropped" in caplog.text


def raw(image_id, regions, **changes):
    url = f"https://host/val2014/COCO_val2014_{image_id:012}.jpg"
    return {"author": "a", "url": url, "regions": regions, "image_id": image_id, "id": 3 * image_id, **changes}


def test_folder_with_one_json_per_image(tmp_path):
    """Sizes come from a mask if there is one, else from the image; names from the url or the json."""
    folder, images = tmp_path / "jsons", tmp_path / "images"
    folder.mkdir()
    images.mkdir()
    (folder / "a.json").write_text(json.dumps(raw(9, [region(i) for i in range(3)])))
    (folder / "b.json").write_text(json.dumps(raw(5, [region(0)])))
    (folder / "notes.txt").write_text("nothing to read")
    Image.new("RGB", (SIZE[1], SIZE[0])).save(images / "a.jpg")
    Image.new("RGB", (SIZE[1], SIZE[0])).save(images / "COCO_val2014_000000000005.jpg")
    records, info = load_dataset(f"cocoa:{folder}:{images}")
    assert [(r.image_id, r.height, r.width) for r in records] == [(5, *SIZE), (9, *SIZE)]
    assert [r.file_name for r in records] == [str(images / "COCO_val2014_000000000005.jpg"), str(images / "a.jpg")]
    check_instances(records[1])
    assert records[1].in_front == ALL
    assert records[1].instances[2].annotation_id == "27 region 3"
    assert info.annotation_file == str(folder)


def test_json_of_one_image_and_list_of_them(tmp_path):
    entries = [raw(9, [region(i) for i in range(3)]), raw(5, [region(0)], height=40, width=60)]
    one = load_cocoa(*write(tmp_path, entries[0], name="one.json"))[0]
    both = load_cocoa(*write(tmp_path, entries, name="both.json"))[0]
    assert [record.image_id for record in both] == [5, 9]
    assert one[0].instances == both[1].instances
    assert one[0].file_name.endswith("images/COCO_val2014_000000000009.jpg")


def test_required_keys_of_single_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no json files"):
        load_cocoa(str(tmp_path / "empty"), str(tmp_path))
    with pytest.raises(ValueError, match=r"x.json is not a COCOA annotation of an image: it has no image_id"):
        load_cocoa(*write(tmp_path, {"regions": [region(0)]}, name="x.json"))
    with pytest.raises(ValueError, match=r"y.json: the size of its image is unknown: cannot read .*000009.jpg"):
        load_cocoa(*write(tmp_path, raw(9, [region(0)]), name="y.json"))


@pytest.mark.parametrize("format", ["cocoa", "d2sa"])
def test_one_annotation_per_object(tmp_path, format):
    """COCOA-cls and D2SA."""
    second = d2sa(1, segmentation=SQUARES[1])  # one flat polygon
    paths = write(tmp_path, d2sa_content(d2sa(0, visible_mask=...), second, d2sa(2, bbox=...)))
    (record,), info = load_dataset("{}:{}:{}".format(format, *paths))
    assert (info.class_names, info.category_ids) == (("tea",), (9,))
    check_instances(record)
    assert record.in_front == ALL


@pytest.mark.parametrize(
    "changes, in_front, counted",
    [
        ([{}, {}, {}], ALL, ""),
        ([{"order": 3}, {}, {"order": 1}], [(0, 1), (0, 2), (1, 2)], ""),
        ([{"amodal_region": None}] * 3, None, ""),
        ([{"amodal_region": {"order": 1}}] * 3, None, "objects have equal order"),
        ([{"amodal_region": 5}, {}, {}], None, "only some objects have an order"),
        ([{"iscrowd": 1}, {}, {}], [(2, 1)], ""),
        ([{"amodal_region": {"order": 2, "isStuff": 1}}, {}, {}], [(2, 1)], ""),
    ],
)
def test_order_of_objects(tmp_path, caplog, changes, in_front, counted):
    annotations = [d2sa(index, **change) for index, change in enumerate(changes)]
    (record,), _ = load_cocoa(*write(tmp_path, d2sa_content(*annotations)))
    assert record.in_front == in_front
    assert counted in caplog.text if counted else caplog.text == ""


def test_images_without_annotations(tmp_path):
    content = {**d2sa_content(), "annotations": None}
    (record,), info = load_cocoa(*write(tmp_path, content))
    assert (record.instances, record.in_front, info.num_classes) == ([], None, 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"segmentation": "mask.png"}, "annotation '7 region 2': amodal mask must be a list of polygons"),
        (
            {"segmentation": [1, 1, 9, 1, 9, "a"]},
            "'7 region 2': amodal mask: a polygon must be a flat list",
        ),
        ({"segmentation": {"size": [60, 40], "counts": "0l^1"}}, r"amodal mask is an RLE of size \[60, 40\]"),
        ({"visible_mask": {"size": [40, 60], "counts": "0l"}}, "the RLE's runs must sum|counts of a compressed RLE"),
        ({"visible_mask": {"size": [40, 60]}}, r"visible mask is an RLE without size or counts: .*\['size'\]"),
        ({"order": "front"}, "order must be a finite number, got 'front'"),
    ],
)
def test_malformed_region_names_file_region_and_value(tmp_path, changes, message):
    content = cocoa([region(0), region(1, **changes)])
    with pytest.raises(ValueError, match=message) as error:
        load_cocoa(*write(tmp_path, content))
    assert "annotations.json is malformed:" in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (cocoa(["a region"]), "'7 region 1': a region must be an object with a segmentation, got 'a region'"),
        (cocoa(5), "'7 region 1': a region must be an object with a segmentation, got 5"),
        (
            cocoa([region(0)], depth_constraint="1>2"),
            "image 1, .*1.png': depth_constraint must be a string .* got '1>2'",
        ),
        (cocoa([region(0)], depth_constraint=[1, 2]), r"depth_constraint must be a string like .* got \[1, 2\]"),
        (cocoa([region(0)], image_id=None), "annotation at position 0: it has no image_id"),
        (cocoa([region(0)], images=[{"id": 1, "file_name": "1.png"}]), "it has no height and no width"),
        (cocoa([region(0)], images=[]), "is not a COCOA file: it has neither a list of images nor regions"),
        ({"images": IMAGES, "annotations": []}, "it has neither regions nor categories"),
        (d2sa_content(d2sa(0, category_id=8)), "annotation 1: category_id 8 is not in the file's categories"),
        (d2sa_content(d2sa(0, order=[1])), r"annotation 1: order must be a finite number, got \[1\]"),
        (17, "is not a COCOA file"),
        ([], "is not a COCOA file|malformed"),
    ],
)
def test_malformed_file(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        load_cocoa(*write(tmp_path, content))
    assert "annotations.json" in str(error.value)


def test_stuff_in_the_depth_constraint_is_evaluated_with_relations(tmp_path):
    """A crowd is part of the file's order, but of no pair whose order is evaluated."""
    content = cocoa([region(0, isStuff=1), region(1), region(2)], depth_constraint="1-2,2-3")
    truth = GroundTruth.from_records(*load_cocoa(*write(tmp_path, content)))
    results = [
        {
            "image_id": 1,
            "category_id": 1,
            "bbox": BOXES[index],
            "segmentation": rle(visible(index)),
            "score": 0.9,
            "number": index,
            "occluded_by": occluded_by,
            "depth": index,
        }
        for index, occluded_by in ((1, [(0, 0.9)]), (2, [(1, 0.8)]))
    ]
    metrics = evaluate_results(truth, results)
    assert {key: metrics["order"][key] for key in ("pairs", "found", "right")} == {"pairs": 1, "found": 1, "right": 1}
