from __future__ import annotations

import logging

import pytest
from coco_samples import annotation, square

from bcnet.data.coco import load_coco

SIZES = {5: (40, 60), 2: (50, 30)}


def test_classes_images_and_instances(coco_files):
    rle = {"size": [50, 30], "counts": [0, 1500]}
    compressed = {"size": [50, 30], "counts": "0l^1"}
    annotations = [
        annotation(11, 5, [1, 2, 30, 20], category_id=7, bg_object_segmentation=[square(3, 3, 9)]),
        annotation(12, 2, [0, 0, 30, 50], segmentation=rle, bg_object_segmentation=[]),
        annotation(13, 5, [4.5, 4, 9, 9.25], bg_object_segmentation={"size": [40, 60], "counts": "P[2"}),
        annotation(14, 2, [0, 0, 30, 50], segmentation=rle, iscrowd=1),
        annotation(15, 2, [0, 0, 30, 50], segmentation=compressed),
    ]
    annotation_file, image_root = coco_files(SIZES, annotations)
    records, info = load_coco(annotation_file, image_root, name="mine")
    assert (info.name, info.class_names, info.category_ids, info.num_classes) == ("mine", ("cat", "cup"), (3, 7), 2)
    assert (info.annotation_file, info.image_root) == (annotation_file, image_root)
    assert [(r.image_id, r.height, r.width) for r in records] == [(2, 50, 30), (5, 40, 60)]
    assert records[1].file_name == f"{image_root}/5.png"
    assert records[1].annotation_file == annotation_file
    first, second = records[1].instances
    assert (first.category, first.bbox, first.annotation_id, first.iscrowd) == (1, [1, 2, 30, 20], 11, False)
    assert first.segmentation == [[1, 2, 31, 2, 31, 22, 1, 22]]
    assert first.occluder == [square(3, 3, 9)]
    assert (second.category, second.bbox, second.occluder["counts"]) == (0, [4.5, 4, 9, 9.25], "P[2")
    whole, crowd, text = records[0].instances
    assert (whole.segmentation, whole.occluder, whole.amodal, whole.iscrowd) == (rle, [], None, False)
    assert (crowd.annotation_id, crowd.iscrowd) == (14, True)
    assert text.segmentation == compressed
    assert text.occluder is None
    assert records[0].in_front is None


def test_amodal_masks_and_depth(coco_files):
    whole = [square(0, 0, 12)]
    annotations = [
        annotation(1, 5, [0, 0, 9, 9], amodal_segmentation=whole, amodal_bbox=[0, 0, 12, 12], depth=1),
        annotation(2, 5, [0, 0, 9, 9], depth=0),
        annotation(3, 5, [0, 0, 9, 9], depth=1, iscrowd=0),
        annotation(4, 5, [0, 0, 9, 9], iscrowd=1),
    ]
    record = load_coco(*coco_files(SIZES, annotations))[0][1]
    assert (record.instances[0].amodal, record.instances[0].amodal_bbox) == (whole, [0, 0, 12, 12])
    # The nearest lies in front of both others; equal depths give no pair.
    assert record.in_front == [(0, 1), (2, 1)]


def test_depth_of_only_some_objects_is_ignored(coco_files, caplog):
    annotations = [annotation(1, 5, [0, 0, 9, 9], depth=1), annotation(2, 5, [0, 0, 9, 9])]
    assert load_coco(*coco_files(SIZES, annotations))[0][1].in_front is None
    assert "1 images in which only some objects have a depth" in caplog.text


def test_image_info_without_annotations(coco_files):
    records, info = load_coco(*coco_files(SIZES, None))
    assert [r.instances for r in records] == [[], []]
    assert info.class_names == ("cat", "cup")


def test_visible_masks_of_amodal_formats_are_not_passed_over_in_silence(coco_files, caplog):
    visible, whole = [square(1, 1, 5)], [square(1, 1, 9)]
    annotations = [
        annotation(1, 5, [1, 1, 9, 9], segmentation=whole, inmodal_seg=visible, inmodal_bbox=[1, 1, 5, 5]),
        annotation(2, 5, [1, 1, 9, 9], segmentation=whole, visible_mask=visible),
        annotation(3, 2, [1, 1, 9, 9], segmentation=whole, visible_mask=visible),
    ]
    records, _ = load_coco(*coco_files(SIZES, annotations))
    assert all(instance.segmentation == whole for record in records for instance in record.instances)
    assert "1 annotations with a visible mask in 'inmodal_seg', which is not read" in caplog.text
    assert "2 annotations with a visible mask in 'visible_mask'" in caplog.text
    assert "'kins:annotations.json:images'" in caplog.text and "'d2sa:annotations.json:images'" in caplog.text


def test_what_is_dropped_or_counted_is_logged_once(coco_files, caplog):
    short, odd = [1, 1, 5, 5], [0, 0, 9, 0, 9, 9, 9]
    annotations = [
        annotation(1, 5, [0, 0, 9, 9], segmentation=[short, square(0, 0, 9), odd]),
        annotation(2, 5, [4, 4, 0, 9]),
        annotation(3, 99, [0, 0, 9, 9]),
        annotation(4, 5, [50, 30, 20, 9]),
        annotation(5, 5, [59.5, 30, 1, 9]),
        annotation(6, 5, [0, 0, 9, 9], segmentation=[]),
        annotation(7, 5, [0, 0, 9, 9], ignore=1, segmentation="not read"),
        annotation(8, 5, [0, 0, 9, 9], bg_object_segmentation=[short]),
    ]
    with caplog.at_level(logging.WARNING):
        records, _ = load_coco(*coco_files(SIZES, annotations))
    kept = {i.annotation_id: i for i in records[1].instances}
    assert sorted(kept) == [1, 2, 4, 5, 6, 7, 8]
    assert kept[1].segmentation == [square(0, 0, 9)]
    assert kept[6].segmentation is None
    assert kept[7].iscrowd
    assert kept[8].occluder == []
    assert len(caplog.records) == 1
    for text in (
        "annotations.json: ",
        "1 polygons of segmentation with fewer than 3 points, dropped (annotation 1)",
        "1 polygons of segmentation with an odd number of coordinates, dropped (annotation 1)",
        "1 polygons of bg_object_segmentation with fewer than 3 points, dropped (annotation 8)",
        "1 objects without a segmentation, used only for boxes (annotation 6)",
        "1 crowds without a usable mask, replaced by their boxes (annotation 7)",
        "1 crowds (iscrowd or ignore) among 7 annotations, not trained on (annotation 7)",
        "1 boxes of zero width or height",
        "1 annotations of images that are not listed, dropped",
        "1 boxes that extend more than a pixel beyond the image",
        "1 annotations with 'ignore', kept as crowds",
    ):
        assert text in caplog.text


def test_nothing_is_logged_for_a_valid_file(coco_files, caplog):
    load_coco(*coco_files(SIZES, [annotation(1, 5, [0, 0, 9, 9])]))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"category_id": 4}, "category_id 4 is not in the file's categories"),
        ({"category_id": None}, "it has no category_id"),
        ({"bbox": None, "segmentation": None}, "it has neither a bbox nor a mask"),
        ({"bbox": [1, 2, 3]}, r"bbox must be four finite numbers .* got \[1, 2, 3\]"),
        ({"bbox": [1, 2, float("nan"), 3]}, "bbox must be four finite numbers .* nan"),
        ({"bbox": [1, 2, "3", 3]}, "bbox must be four finite numbers"),
        ({"bbox": [1, 2, -3, 3]}, r"bbox has a negative size: \[1, 2, -3, 3\]"),
        ({"bbox": [60, 2, 3, 3]}, r"bbox \[60, 2, 3, 3\] lies outside its image 5 of 60 x 40 pixels"),
        ({"bbox": [6, -5, 3, 4]}, "lies outside its image 5"),
        ({"amodal_bbox": [1, 2]}, r"amodal_bbox must be four finite numbers .* got \[1, 2\]"),
        ({"depth": "near"}, "depth must be a finite number, got 'near'"),
        (
            {"segmentation": [[1, 1, 5, 5]]},
            r"every polygon has fewer than 3 points: segmentation is \[\[1, 1, 5, 5\]\]",
        ),
        ({"amodal_segmentation": [[1, 1]]}, "every polygon has fewer than 3 points: amodal_segmentation"),
        ({"segmentation": [1, 1, 5, 5, 9, 9]}, "must be a list of polygons .* got .1, 1, 5, 5, 9, 9."),
        ({"segmentation": [[[1, 1], [5, 5], [9, 9]]]}, "must be a list of polygons"),
        ({"segmentation": "mask.png"}, "must be a list of polygons .* or an RLE, got 'mask.png'"),
        ({"segmentation": {"counts": "x"}}, r"RLE without size or counts: its keys are \['counts'\]"),
        ({"segmentation": {"counts": [9], "size": [60, 40]}}, r"size \[60, 40\]; its image 5 .* \[40, 60\]"),
        ({"bg_object_segmentation": "x"}, "bg_object_segmentation must be a list of polygons"),
        ({"id": None}, "annotation at position 1: it has no id"),
        ({"image_id": None}, "it has no image_id"),
        ({"id": 11}, "annotation 11: its id is used twice"),
    ],
)
def test_malformed_annotation_names_file_id_and_value(coco_files, changes, message):
    annotations = [annotation(11, 5, [0, 0, 9, 9]), annotation(12, 5, [0, 0, 9, 9], **changes)]
    with pytest.raises(ValueError, match=message) as error:
        load_coco(*coco_files(SIZES, annotations))
    assert "annotations.json is malformed:" in str(error.value)
    if changes.get("id", 12) == 12 and "id" not in changes:
        assert "annotation 12: " in str(error.value) or "annotation at position 1: " in str(error.value)


def test_many_faults_come_as_one_error(coco_files):
    annotations = [annotation(i, 5, [0, 0, 9, 9], category_id=100 + i) for i in range(8)]
    with pytest.raises(ValueError) as error:
        load_coco(*coco_files(SIZES, annotations))
    text = str(error.value)
    assert "annotation 0: category_id 100" in text and "annotation 4: category_id 104" in text
    assert "annotation 5" not in text
    assert text.endswith("and 3 more")


@pytest.mark.parametrize(
    "images, message",
    [
        ([{"id": 1, "file_name": "a.png", "height": 0, "width": 9}], "image 1, 'a.png': height and width are 0 and 9"),
        ([{"id": 1, "file_name": "a.png", "height": 9}], "image 1, 'a.png': it has no width"),
        ([{"file_name": "a.png", "height": 9, "width": 9}], "image at position 0: it has no id"),
        ([{"id": 1, "height": 9, "width": 9}], "it has no file_name"),
        ([{"id": 1, "file_name": f"{n}.png", "height": 9, "width": 9} for n in "ab"], "b.png.*id is used twice.*a.png"),
        (["a.png"], "image at position 0: it must be an object with id"),
        ([], "the list of images is empty"),
        (None, "is not a COCO file: it has no list of images"),
    ],
)
def test_malformed_images(coco_files, images, message):
    with pytest.raises(ValueError, match=message):
        load_coco(*coco_files(SIZES, images=images))


@pytest.mark.parametrize(
    "categories, message",
    [
        ([], "the list of categories is empty"),
        ([{"id": 1}], "a category must have an integer id and a name, got {'id': 1}"),
        ([{"id": "one", "name": "cat"}], "a category must have an integer id"),
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], r"category ids are not unique: \[1, 1\]"),
    ],
)
def test_malformed_categories(coco_files, categories, message):
    with pytest.raises(ValueError, match=message):
        load_coco(*coco_files(SIZES, categories=categories))


@pytest.mark.parametrize("text", ['{"images": [', "[]", "version https://git-lfs", "3"])
def test_file_that_is_not_a_coco_json(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"broken.json is (not valid JSON|not a COCO file)"):
        load_coco(str(path), str(tmp_path))
