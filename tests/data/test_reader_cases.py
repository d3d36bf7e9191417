"""Reader: malformed and unusual files from practice, one kind of fault each, and the resulting message."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from coco_samples import annotation, square

from bcnet.data import load_dataset
from bcnet.data.coco import load_coco
from bcnet.evaluation import CocoEvaluator, GroundTruth, average_precision, ground_truth_of
from bcnet.ops.rle import rle_to_json, segmentation_to_rle

SIZE = (120, 160)  # height, width
SIZES = {1: SIZE, 2: SIZE}
BOXES = [[69, 7, 51, 51], [15, 79, 30, 35], [120, 20, 30, 25], [5, 40, 20, 50]]


def objects(**changes):
    return [annotation(n + 1, 1 + n % 2, box, **changes) for n, box in enumerate(BOXES)]


def names(instances):
    return [instance.annotation_id for instance in instances]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_byte_order_mark_and_utf_16(coco_files, tmp_path, encoding):
    path, root = coco_files(SIZES, objects())
    plain = load_coco(path, root)
    with open(path, encoding="utf-8") as file:
        content = file.read()
    with open(path, "w", encoding=encoding) as file:
        file.write(content)
    assert load_coco(path, root) == plain
    assert len(GroundTruth.from_file(path).annotations) == len(BOXES)


@pytest.mark.parametrize("zero, one", [("0", "1"), ("false", "true"), (False, True), (0.0, 1.0), (None, 1)])
def test_flags_as_string_bool_null_and_number(coco_files, zero, one):
    annotations = objects(iscrowd=zero)
    annotations[0]["iscrowd"] = one
    records, _ = load_coco(*coco_files(SIZES, annotations))
    assert [[instance.iscrowd for instance in record.instances] for record in records] == [[True, False], [False] * 2]


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", ["yes", "", 2, -1, 0.5, [], "nan"])
def test_flags_of_other_values_are_rejected(coco_files, key, value):
    annotations = objects()
    annotations[2][key] = value
    with pytest.raises(ValueError, match=rf"(?s)annotations\.json.*annotation 3: {key} must be 0, 1, false or true"):
        load_coco(*coco_files(SIZES, annotations))


def test_many_crowds_are_counted_and_named(coco_files, caplog):
    annotations = objects()
    for entry in annotations[::2]:
        entry["iscrowd"] = 1
    load_coco(*coco_files(SIZES, annotations))
    assert (
        "2 crowds (iscrowd or ignore) among 4 annotations, not trained on (annotation 1, annotation 3)" in caplog.text
    )


def test_coordinates_as_fractions_of_the_image(coco_files):
    annotations = objects()
    for entry in annotations:
        x, y, w, h = (value / side for value, side in zip(entry["bbox"], (160, 120, 160, 120), strict=True))
        entry |= {"bbox": [x, y, w, h], "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
    message = r"all coordinates of all 4 objects lie in 0..1 \(bbox of annotation 1: \[0.43.*fractions of the image"
    with pytest.raises(ValueError, match=message):
        load_coco(*coco_files(SIZES, annotations))


def test_coordinates_in_percent_are_logged(coco_files, caplog):
    boxes = [[n % 9 * 10, n // 9 * 10, 9.5, 9.5] for n in range(30)]
    annotations = [annotation(n, 1, box) for n, box in enumerate(boxes)]
    load_coco(*coco_files({1: (300, 400)}, annotations))
    assert "no coordinate exceeds 100 in images of at least 300 pixels: are they in percent" in caplog.text


def swapped(box):
    x, y, w, h = box
    return [[y, x, y + h, x, y + h, x + w, y, x + w]]


def corners(x, y, w, h):
    return [x, y, x + w, y + h]


def row_major(box):
    """The row-major runs of a mask, stored as if they were column-major."""
    height, width = SIZE
    x, y, w, h = box
    runs = [y * width + x, w, *[width - w, w] * (h - 1), width * height - (y + h - 1) * width - x - w]
    return {"size": [height, width], "counts": runs}


def scaled(box, width, height):
    x, y, w, h = (value * side for value, side in zip(box, (width, height, width, height), strict=True))
    return [x, y, w, h]


@pytest.mark.parametrize(
    "change, cause",
    [
        (lambda box: {"segmentation": swapped(box)}, "masks with x and y swapped"),
        (lambda box: {"bbox": [box[1], box[0], box[3], box[2]]}, "masks with x and y swapped"),
        (lambda box: {"bbox": scaled(box, 1 / 160, 1 / 120)}, "boxes in fractions"),
        (lambda box: {"bbox": scaled(box, 100 / 1600, 100 / 1200)}, "boxes in percent"),
        (lambda box: {"segmentation": [square(box[0] / 160, box[1] / 120, box[2] / 160)]}, "masks in fractions"),
        (lambda box: {"segmentation": row_major(box)}, "RLE in row-major order"),
    ],
)
def test_masks_outside_their_boxes_are_rejected_with_the_likely_cause(coco_files, change, cause):
    sizes = dict.fromkeys(SIZES, (1200, 1600) if "percent" in cause else SIZE)
    annotations = [entry | change(entry["bbox"]) for entry in objects()]
    with pytest.raises(ValueError, match=rf"(?s)annotation \d: segmentation spans x .*likely cause: {cause}"):
        load_coco(*coco_files(sizes, annotations, name="other.json"))


def test_boxes_of_two_corners_are_logged_with_ids(coco_files, caplog):
    boxes = [[40, 30, 30, 25], [50, 40, 20, 30]]
    annotations = [annotation(n, 1, box) | {"bbox": corners(*box)} for n, box in enumerate(boxes)]
    load_coco(*coco_files(SIZES, annotations))
    assert "2 masks that disagree with their boxes" in caplog.text
    assert "(annotation 0, annotation 1)" in caplog.text
    assert "likely cause: boxes as two corners [x0, y0, x1, y1] (2 of the first 2" in caplog.text


def test_objects_that_lose_their_mask_are_counted(coco_files, caplog):
    thin = [69, 7, 120, 7, 120, 7.2, 69, 7.2]
    outside = [150, 30, 190, 30, 190, 31, 160.4, 31]
    annotations = [
        annotation(1, 1, [69, 7, 51, 51], segmentation=[thin]),
        annotation(2, 1, [150, 20, 30, 25], segmentation=[outside]),
        annotation(3, 1, [5, 40, 20, 50], segmentation={"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}),
        annotation(4, 1, [5, 40, 20, 50]),
    ]
    load_coco(*coco_files(SIZES, annotations))
    empty = [a["id"] for a in annotations if not segmentation_area(a["segmentation"])]
    listed = ", ".join(f"annotation {number}" for number in empty)
    assert {1, 3} <= set(empty)
    assert f"{len(empty)} masks (segmentation) that cover no pixel centre, not trained on ({listed})" in caplog.text


def segmentation_area(segmentation):
    from pycocotools import mask as coco_mask

    return coco_mask.area(segmentation_to_rle(segmentation, *SIZE))


def test_two_images_of_one_id_are_rejected_by_training_and_evaluation(coco_files):
    image = {"id": 1, "file_name": "a.png", "height": 120, "width": 160}
    path, root = coco_files(SIZES, objects()[::2], images=[image, {**image, "id": 1.0, "file_name": "b.png"}])
    for read in (lambda: load_coco(path, root), lambda: GroundTruth.from_file(path)):
        with pytest.raises(ValueError, match=r"image 1.0, 'b.png': its id is used twice, by 'a.png' too"):
            read()


def test_ids_of_mixed_types(coco_files, caplog):
    images = [{"id": value, "file_name": "a.png", "height": 120.0, "width": 160} for value in ("b", 2.0, "1", 1)]
    annotations = [annotation(1.0, 2, BOXES[0]), annotation("1", "1", BOXES[1], category_id=3.0)]
    annotations.append(annotation(3, "4", BOXES[1]))
    path, root = coco_files(SIZES, annotations, images=images)
    records, _ = load_coco(path, root)
    # Numbers before strings, which are different ids.
    assert [(record.image_id, names(record.instances)) for record in records] == [
        (1, []),
        (2, [1]),
        ("1", ["1"]),
        ("b", []),
    ]
    assert all(type(record.height) is int for record in records)
    assert "1 annotations of images that are not listed, dropped (annotation 3)" in caplog.text
    assert GroundTruth.from_file(path).image_ids == [1, 2, "1", "b"]


@pytest.mark.parametrize(("listed", "used"), [("1", 1), (1, "1"), (1.0, "1"), ("1", 1.0)])
def test_image_ids_that_differ_only_in_type_are_rejected(coco_files, listed, used):
    images = [{"id": listed, "file_name": "a.png", "height": 120, "width": 160}]
    path, root = coco_files(SIZES, [annotation(3, used, BOXES[0])], images=images)
    with pytest.raises(
        ValueError, match=r"annotation 3: image_id is .*1.*, the image's id is .*1.*strings and numbers differ"
    ):
        load_coco(path, root)


def test_duplicate_category_names_are_logged_and_kept(coco_files, caplog):
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "cat"}, {"id": 5, "name": "cup"}]
    _, info = load_coco(*coco_files(SIZES, objects(), categories=categories))
    assert info.class_names == ("cat", "cup", "cat")
    assert "2 categories with a duplicate name (category 3 'cat', category 7 'cat')" in caplog.text


def test_unused_categories_are_logged_and_optionally_dropped(coco_files, caplog):
    categories = [{"id": 0, "name": "everything"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]
    annotations = objects()
    annotations[3]["category_id"] = 9
    paths = coco_files(SIZES, annotations, categories=categories)
    with caplog.at_level("INFO"):
        records, info = load_dataset("coco:{}:{}".format(*paths))
    assert "without annotations: everything" in caplog.text
    assert info.class_names == ("everything", "cat", "dog")
    records, info = load_dataset("coco_used:{}:{}".format(*paths))
    assert (info.class_names, info.category_ids) == (("cat", "dog"), (3, 9))
    assert [[instance.category for instance in record.instances] for record in records] == [[0, 0], [0, 1]]
    truth = ground_truth_of("coco_used:{}:{}".format(*paths))
    assert [entry["category_id"] for entry in truth.annotations] == [3, 3, 3, 9]


@pytest.mark.parametrize("area", [None, "9", float("nan"), -1])
def test_a_missing_area_is_that_of_the_mask(coco_files, caplog, area):
    annotations = [annotation(1, 1, [10, 10, 20, 5]), annotation(2, 1, [10, 10, 20, 5], area=9000.5)]
    annotations[0]["area"] = area
    path, root = coco_files(SIZES, annotations)
    load_coco(path, root)
    assert "1 areas missing or not a number, computed from the mask (annotation 1)" in caplog.text
    assert [entry["area"] for entry in GroundTruth.from_file(path).annotations] == [100, 9000.5]


@pytest.mark.parametrize("box", [None, []])
def test_a_missing_box_is_that_of_the_mask(coco_files, caplog, box):
    annotations = [annotation(1, 1, [10, 10, 20, 5]) | {"bbox": box}, annotation(2, 1, [10, 10, 20, 5])]
    path, root = coco_files(SIZES, annotations)
    (first, second), _ = (record.instances for record in load_coco(path, root)[0])
    assert first.bbox == second.bbox == [10, 10, 20, 5]
    assert "1 missing boxes, computed from the mask (annotation 1)" in caplog.text


CROWD_MASKS = [None, [], "mask.png", [[1, 2, 3]], {"size": [3, 3], "counts": [9]}, {"size": [120, 160], "counts": "x"}]


@pytest.mark.parametrize("flag", [{"iscrowd": 1}, {"iscrowd": 0, "ignore": 1}])
@pytest.mark.parametrize("mask", CROWD_MASKS)
def test_a_crowd_without_a_usable_mask_is_its_box(coco_files, caplog, flag, mask):
    """A detection on it is ignored by both metrics: neither a true nor a false positive."""
    annotations = [annotation(1, 1, [10, 10, 20, 20]), annotation(2, 1, [60, 60, 40, 40]) | flag]
    annotations[1]["segmentation"] = mask
    path, root = coco_files(SIZES, annotations)
    records, info = load_coco(path, root)
    assert "1 crowds without a usable mask, replaced by their boxes (annotation 2)" in caplog.text
    assert [instance.iscrowd for instance in records[0].instances] == [False, True]
    on_crowd, on_object = (result(box, score) for box, score in (([65, 65, 20, 20], 0.9), ([10, 10, 20, 20], 0.8)))
    for truth in (GroundTruth.from_file(path), GroundTruth.from_records(records, info)):
        for iou_type in ("bbox", "segm"):
            assert average_precision(truth, [on_crowd, on_object], iou_type)["AP"] == pytest.approx(100)


def result(box, score):
    x, y, w, h = box
    rle = rle_to_json(segmentation_to_rle([[x, y, x + w, y, x + w, y + h, x, y + h]], *SIZE))
    return {"image_id": 1, "category_id": 3, "bbox": box, "segmentation": rle, "score": score}


def test_the_file_of_a_data_set_is_read_once(coco_files, monkeypatch):
    from bcnet.data import coco_json

    path, root = coco_files(SIZES, objects())
    reads = []
    read_json = coco_json.read_json
    monkeypatch.setattr(coco_json, "read_json", lambda name: reads.append(name) or read_json(name))
    dataset = load_dataset(f"coco:{path}:{root}")
    CocoEvaluator(ground_truth_of(dataset))
    assert reads == [path]


def test_reading_needs_no_torch(coco_files):
    path, root = coco_files(SIZES, objects())
    code = (
        "import sys, bcnet.data.occluder_annotations, bcnet.data.coco_occ, bcnet.data\n"
        f"records, info = bcnet.data.load_dataset({f'coco:{path}:{root}'!r})\n"
        "assert len(records) == 2 and 'torch' not in sys.modules, sorted(sys.modules)\n"
        "from bcnet.data import DatasetMapper, read_image\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_odd_number_of_coordinates_is_named_as_such(coco_files):
    annotations = objects()
    annotations[1]["segmentation"] = [annotations[1]["segmentation"][0][:-1]]
    with pytest.raises(
        ValueError, match="annotation 2: every polygon has an odd number of coordinates: segmentation is"
    ):
        load_coco(*coco_files(SIZES, annotations))


def test_annotations_must_be_a_list(coco_files):
    path, root = coco_files(SIZES, objects())
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**content, "annotations": {"1": content["annotations"]}}, file)
    with pytest.raises(ValueError, match=r"annotations\.json: annotations must be a list, got"):
        load_coco(path, root)
