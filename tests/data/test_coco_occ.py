from __future__ import annotations

import json

import numpy as np
import pytest

from bcnet.data.coco import mask_reader
from bcnet.data.coco_occ import OVERLAPS, box_overlaps, build_coco_occ, mask_overlaps, select_images
from bcnet.ops.rle import segmentation_to_rle

# Two boxes of 100 that share 40, and one of 25 inside the first.
BOXES = [[0, 0, 10, 10], [6, 0, 10, 10], [0, 5, 5, 5]]


@pytest.mark.parametrize(
    ("overlap", "classes", "expected"),
    [
        ("iou", "abc", [40 / 160, 25 / 100, 0]),
        ("same-class-iou", "aba", [0, 25 / 100, 0]),
        ("same-class-iou", "aab", [40 / 160, 0, 0]),
        ("smaller", "abc", [40 / 100, 25 / 25, 0]),
    ],
)
def test_overlap_of_boxes(overlap, classes, expected):
    overlaps = box_overlaps(BOXES, classes, overlap)
    assert [overlaps[0, 1], overlaps[0, 2], overlaps[1, 2]] == expected
    assert (overlaps == overlaps.T).all()
    assert (np.diag(overlaps) == 0).all()


def test_boxes_without_area_do_not_overlap():
    boxes = [[0, 0, 10, 10], [2, 2, 0, 5], [2, 2, 0, 5]]
    for overlap in ("iou", "same-class-iou", "smaller"):
        assert box_overlaps(boxes, [1, 1, 1], overlap).max() == 0
        assert box_overlaps([], [], overlap).shape == (0, 0)


def test_masks_inside_the_others_box():
    size = (20, 20)
    triangle = [[6, 0, 16, 0, 6, 10]]
    masks = [segmentation_to_rle([[0, 0, 10, 0, 10, 10, 0, 10]], *size), segmentation_to_rle(triangle, *size)]
    overlaps = mask_overlaps(BOXES[:2], masks, size)
    assert overlaps[1, 0] == 40 / 100
    assert overlaps[0, 1] == (9 + 8 + 7 + 6) / 100  # the pixel centres of columns 6..9 in the triangle
    assert mask_overlaps([], [], size).shape == (0, 0)


def annotation(annotation_id, image_id, box, category=1, **more):
    x, y, w, h = box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category,
        "bbox": box,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    } | more


def content():
    return {
        "info": {"description": "d"},
        "licenses": [{"id": 1}],
        "images": [{"id": n, "height": 20, "width": 20, "file_name": f"{n}.jpg"} for n in (7, 3, 5, 9, 4)],
        "annotations": [
            annotation(1, 5, BOXES[1]),
            annotation(2, 7, BOXES[0]),
            annotation(3, 5, BOXES[0]),  # 5: two of a class
            annotation(4, 7, BOXES[1], category=2),  # 7: two of different classes
            annotation(5, 3, BOXES[0]),
            annotation(6, 3, BOXES[1], iscrowd=1),  # 3: an object and a crowd
            annotation(7, 5, [0, 0, 1, 1], iscrowd=1),
            annotation(8, 9, BOXES[0]),
            annotation(9, 9, [0, 0, -5, 5]),  # 9: one malformed
            annotation(10, 4, BOXES[0], ignore=1),  # 4: one to ignore
            annotation(11, 4, BOXES[0]),
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def records(content):
    return [image.record for image in mask_reader(content, "annotations.json")]


def test_selection_by_each_definition_of_overlap():
    images = records(content())
    selected = {name: [images[n].image_id for n in select_images(images, name, 0.2)] for name in OVERLAPS}
    assert selected == {"iou": [7, 5], "same-class-iou": [5], "smaller": [7, 5], "mask": [7, 5]}


def test_the_threshold_is_included():
    assert len(select_images(records(content()), "same-class-iou", 0.25)) == 1
    assert len(select_images(records(content()), "same-class-iou", 0.2501)) == 0


def test_the_output_is_a_coco_json_of_the_selected_images(tmp_path):
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(content()))
    shares = build_coco_occ(str(source), str(output))
    assert shares == {"iou": 0.4, "same-class-iou": 0.2, "smaller": 0.4, "mask": 0.4}
    result, whole = json.loads(output.read_text()), content()
    assert list(result) == list(whole)
    for key in ("info", "licenses", "categories"):
        assert result[key] == whole[key]
    assert result["images"] == [image for image in whole["images"] if image["id"] == 5]
    assert result["annotations"] == [a for a in whole["annotations"] if a["image_id"] == 5]


def test_nothing_is_overwritten_by_default(tmp_path):
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(content()))
    output.write_text("precious")
    with pytest.raises(FileExistsError, match=r"out\.json exists"):
        build_coco_occ(str(source), str(output))
    with pytest.raises(ValueError, match="would overwrite the input"):
        build_coco_occ(str(source), str(source), overwrite=True)
    build_coco_occ(str(source), str(output), overwrite=True)
    assert json.loads(output.read_text())["images"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overlap": "area"}, "one of iou, same-class-iou, smaller, mask, got 'area'"),
        ({"threshold": 0}, "above 0 and at most 1, got 0"),
        ({"threshold": 1.5}, "got 1.5"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    source = tmp_path / "in.json"
    source.write_text(json.dumps(content()))
    with pytest.raises(ValueError, match=message):
        build_coco_occ(str(source), str(tmp_path / "out.json"), **arguments)
    assert not (tmp_path / "out.json").exists()


def test_unusable_entries_are_not_selected_and_logged(tmp_path, caplog):
    broken = content()
    broken["images"][1]["height"] = 0
    source = tmp_path / "in.json"
    source.write_text(json.dumps(broken))
    build_coco_occ(str(source), str(tmp_path / "out.json"), overlap="iou")
    assert [image["id"] for image in json.loads((tmp_path / "out.json").read_text())["images"]] == [7, 5]
    assert "1 x images without a valid height and width, left out (image 3, '3.jpg')" in caplog.text
    assert "1 x bbox of negative size, left out (annotation 9)" in caplog.text
    assert "2 annotations of images that cannot be used, dropped (annotation 5, annotation 6)" in caplog.text
