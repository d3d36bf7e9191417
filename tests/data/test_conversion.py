"""Conversion between formats, the writers, and their round trips."""

import json
import os

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from bcnet.cli import main
from bcnet.data import load_dataset
from bcnet.data.conversion import convert_dataset, split_records, with_amodal_shapes, with_crowds_as_objects
from bcnet.data.exporters.masks import single_polygon
from bcnet.data.records import ImageRecord, InstanceRecord
from bcnet.data.source_masks import amodal_rle, visible_rle
from bcnet.ops.rle import rle_to_json, segmentation_to_rle

SIZE = (20, 30)
SQUARE = [2, 2, 10, 2, 10, 10, 2, 10]
KINDS = [(kind, split) for kind in ("images", "labels") for split in ("train", "val")]
FAR = [20, 12, 28, 12, 28, 18, 20, 18]
OVER = [6.25, 4.5, 16, 4.5, 16, 12, 6.25, 12]
HOLE = np.pad(np.pad(np.zeros((2, 2), dtype=np.uint8), 2, constant_values=1), ((8, 6), (13, 11)))


def rle(mask):
    return dict(rle_to_json(coco_mask.encode(np.asfortranarray(mask))))


def annotation(number, segmentation, category=1, image=1, **changes):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation} | changes


OBJECTS = [
    annotation(1, [SQUARE, FAR], depth=3),
    annotation(2, [OVER], 2, depth=1, attributes={"occluded": False}),
    annotation(3, rle(HOLE), depth=2, amodal_segmentation=rle(HOLE), hidden_fraction=0.25),
    annotation(4, [SQUARE], iscrowd=1),
]


@pytest.fixture
def coco(tmp_path):
    """A COCO data set in the folder of the test: two images, the second empty; gives the paths of json and images."""

    def make(objects=OBJECTS, count=2):
        for number in range(1, count + 1):
            path = tmp_path / f"photos/{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((*SIZE, 3), number, dtype=np.uint8)).save(path)
        images = [
            {"id": number, "file_name": f"{number}.png", "height": 20, "width": 30} for number in range(1, count + 1)
        ]
        categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "a bowl"}]
        content = {"images": images, "categories": categories, "annotations": objects}
        (tmp_path / "coco.json").write_text(json.dumps(content))
        return [str(tmp_path / "coco.json"), str(tmp_path / "photos")]

    return make


def masks(record):
    objects = (instance for instance in record.instances if not instance.iscrowd)
    return [coco_mask.decode(visible_rle(record, instance)) for instance in objects]


def test_coco_gives_the_same_records(coco, tmp_path):
    paths = coco()
    output = str(tmp_path / "out/again.json")
    result = convert_dataset("coco", paths, output)
    assert result.lost == {} and result.missing == [] and result.instances == {"": 4}
    before, info = load_dataset("coco:" + ":".join(paths))
    after, again = load_dataset(f"coco:{output}:{paths[1]}")
    for first, second in zip(before, after, strict=True):
        assert (first.file_name, first.image_id, first.in_front) == (second.file_name, second.image_id, second.in_front)
        for old, new in zip(first.instances, second.instances, strict=True):
            assert old.segmentation == new.segmentation and old.amodal == new.amodal
            assert (old.bbox, old.annotation_id, old.category) == (new.bbox, new.annotation_id, new.category)
            assert (old.hidden_fraction, old.occluded, old.iscrowd) == (new.hidden_fraction, new.occluded, new.iscrowd)
    assert info.class_names == again.class_names
    assert json.loads((tmp_path / "out/again.json").read_text())["annotations"][1]["depth"] == 0


@pytest.mark.parametrize(
    "pairs, unordered", [([(0, 1), (1, 0)], ()), ([(0, 1)], (2,)), ([(0, 1), (1, 2)], ()), ([], ())]
)
def test_orders_that_no_depth_can_say_are_lists_of_ids(tmp_path, coco, pairs, unordered):
    from dataclasses import replace

    from bcnet.data.exporters.coco import write_coco

    (record, _), info = load_dataset("coco:" + ":".join(coco()))
    record.in_front, record.unordered = pairs, unordered
    output = str(tmp_path / "ordered.json")
    write_coco([record], replace(info, annotated_occlusions=True), output)
    (again,), description = load_dataset(f"coco:{output}:{tmp_path}/photos")
    assert (sorted(again.in_front), again.unordered) == (pairs, unordered)
    assert description.annotated_occlusions


@pytest.mark.parametrize(
    "lists, pairs, unordered, message",
    [
        ([[2], []], [(0, 1)], (), None),
        ([[2], None], [(0, 1)], (1,), None),
        ([[2.0, 2], [1]], [(0, 1), (1, 0)], (), None),
        ([[9, 1], []], [], (), "1 ids of in_front that no annotation of the image has, dropped (annotation 1)"),
        ([None, None], None, (), None),
    ],
)
def test_lists_of_ids_in_front(coco, caplog, lists, pairs, unordered, message):
    objects = [annotation(number, [SQUARE], in_front=ids) for number, ids in enumerate(lists, start=1)]
    (record, _), _ = load_dataset("coco:" + ":".join(coco(objects)))
    assert (record.in_front, record.unordered) == (pairs, unordered)
    assert message is None or message in caplog.text


@pytest.mark.parametrize("value", ["2", 2, [[2]], [None]])
def test_in_front_that_is_no_list_of_ids(coco, value):
    with pytest.raises(ValueError, match="in_front of annotation 1 must be a list of ids, got"):
        load_dataset("coco:" + ":".join(coco([annotation(1, [SQUARE], in_front=value)])))


def test_labelme_round_trip(coco, tmp_path):
    paths = coco()
    output = str(tmp_path / "labelme")
    lost = convert_dataset("coco", paths, output, target_format="labelme").lost
    assert lost == {"crowds, left out": 1, "amodal masks": 1, "hidden fractions of objects": 1}
    before = load_dataset("coco:" + ":".join(paths))[0][0]
    (after, empty), info = load_dataset(f"labelme_ordered:{output}")
    # Back to front: 1 (depth 3), 3, 2.
    assert after.in_front == [(0, 1), (0, 2), (1, 2)] and info.class_names == ("cup", "a bowl")
    assert after.instances[0].segmentation == before.instances[0].segmentation
    assert after.instances[2].segmentation == before.instances[1].segmentation
    assert after.instances[1].segmentation == before.instances[2].segmentation
    assert [instance.occluded for instance in after.instances] == [None, None, False]
    assert os.path.samefile(after.file_name, before.file_name) and empty.instances == []
    shapes = json.loads((tmp_path / "labelme/1.json").read_text())["shapes"]
    assert [shape["shape_type"] for shape in shapes] == ["polygon", "polygon", "mask", "polygon"]
    assert shapes[0]["points"][0] == [2, 2] and shapes[0]["group_id"] == shapes[1]["group_id"] is not None


def test_yolo_round_trip(coco, tmp_path):
    paths = coco()
    output = str(tmp_path / "yolo")
    lost = convert_dataset("coco", paths, output, target_format="yolo").lost
    counts = {"crowds, left out": 1, "amodal masks": 1, "depth orders of images": 1, "hidden fractions of objects": 1}
    assert lost == counts | {"flags 'occluded' of objects": 1}
    before = load_dataset("coco:" + ":".join(paths))[0][0]
    (after, empty), info = load_dataset(f"yolo:{output}/data.yaml")
    assert info.class_names == ("cup", "a bowl") and empty.instances == []
    assert after.instances[1].segmentation == [OVER]  # to the vertex
    assert all(map(np.array_equal, masks(after), masks(before)))
    content = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert content == {"train": "images/train", "names": {0: "cup", 1: "a bowl"}}
    assert (tmp_path / "yolo/images/train/1.png").read_bytes() == (tmp_path / "photos/1.png").read_bytes()


@pytest.mark.parametrize("lists, count", [([[2], [], []], 1), ([[], [], []], None), ([[2, 3], [3], []], None)])
def test_orders_that_no_sequence_of_shapes_says_are_lost_in_labelme(coco, tmp_path, lists, count):
    objects = [annotation(number, [SQUARE], in_front=ids) for number, ids in enumerate(lists, start=1)]
    lost = convert_dataset("coco", coco(objects), str(tmp_path / "lm"), target_format="labelme").lost
    assert lost.get("depth orders of images that no sequence of shapes can say") == count


def test_boxes_alone_stay_boxes(coco, tmp_path):
    paths = coco([annotation(1, [], bbox=[3, 4, 9, 6])])
    convert_dataset("coco", paths, str(tmp_path / "yolo"), target_format="yolo")
    (instance,) = load_dataset(f"yolo:{tmp_path}/yolo")[0][0].instances
    assert instance.segmentation is None and instance.bbox == pytest.approx([3, 4, 9, 6])
    lost = convert_dataset("coco", paths, str(tmp_path / "labelme"), target_format="labelme").lost
    assert lost == {"objects without a mask, written as rectangles": 1}


def test_label_images_are_flattened_by_depth(coco, tmp_path):
    paths = coco()
    output = str(tmp_path / "labels")
    lost = convert_dataset("coco", paths, output, target_format="label-images").lost
    values = np.asarray(Image.open(tmp_path / "labels/1.png"))
    first, second, third = (mask.astype(bool) for mask in masks(load_dataset("coco:" + ":".join(paths))[0][0]))
    assert values.dtype == np.uint16 and set(np.unique(values)) == {0, 1, 2, 3}
    assert (values[second] == 2).all() and (values[third & ~second] == 3).all()
    assert (values[first & ~second & ~third] == 1).all() and not values[~(first | second | third)].any()
    covered = int((first & (second | third)).sum() + (third & second).sum())
    assert lost["pixels of objects that others cover"] == pytest.approx(covered, abs=3)
    assert not np.asarray(Image.open(tmp_path / "labels/2.png")).any()
    records, _ = load_dataset(f"label-images:{output}:{paths[1]}")
    assert len(records[0].instances) == 3


def test_layered_tiff_round_trip(coco, tmp_path):
    paths = coco()
    output = str(tmp_path / "layers")
    convert_dataset("coco", paths, output, target_format="layered-tiff")
    with tifffile.TiffFile(tmp_path / "layers/1.tif") as file:  # what napari reads it with
        assert file.is_imagej and file.asarray().shape == (3, *SIZE)
    before = load_dataset("coco:" + ":".join(paths))[0][0]
    after, empty = load_dataset(f"label-images:{output}:{paths[1]}")[0]
    assert all(map(np.array_equal, masks(after), masks(before))) and empty.instances == []


def test_objects_that_others_cover_are_counted(coco, tmp_path):
    paths = coco([annotation(1, [SQUARE], depth=2), annotation(2, [SQUARE], depth=1)])
    lost = convert_dataset("coco", paths, str(tmp_path / "labels"), target_format="label-images").lost
    assert lost["objects that others cover altogether"] == 1 and lost["pixels of objects that others cover"] == 64


def test_more_objects_than_a_byte_or_two_can_count(tmp_path):
    from bcnet.data.exporters.label_images import write_label_images
    from bcnet.data.records import DatasetInfo

    mask = np.zeros((40, 40), dtype=np.uint8)
    instances = []
    for number in range(300):  # as in SyMBac's issue 58, where values above 255 came back as background
        mask[:] = 0
        mask[divmod(number, 40)] = 1
        instances.append(InstanceRecord([number % 40, number // 40, 1, 1], 0, segmentation=rle(mask)))
    record = ImageRecord(str(tmp_path / "a.png"), 1, 40, 40, instances)
    write_label_images([record], DatasetInfo("", ("cell",), (1,), "", str(tmp_path)), str(tmp_path / "out"))
    assert np.asarray(Image.open(tmp_path / "out/a.png")).max() == 300


points = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 80)), min_size=3, max_size=6)


@given(st.lists(points, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_one_polygon_covers_the_pixels_of_all_parts(polygons):
    segmentation = [[value / 4 for point in polygon for value in point] for polygon in polygons]
    expected = segmentation_to_rle(segmentation, *SIZE)
    joined = single_polygon(segmentation, *SIZE)
    assert not coco_mask.area(expected) if not joined else segmentation_to_rle([joined], *SIZE) == expected


def test_a_split_shares_no_image(coco, tmp_path):
    paths = coco([annotation(1, [SQUARE])], count=10)
    (tmp_path / "photos/2.png").write_bytes((tmp_path / "photos/1.png").read_bytes())
    records, _ = load_dataset("coco:" + ":".join(paths))
    splits = [split_records(records, 0.7, seed) for seed in range(20)]
    for split in splits:
        ids = [[record.image_id for record in side] for side in split.values()]
        assert sorted(ids[0] + ids[1]) == list(range(1, 11)) and ids[0] == sorted(ids[0])
        assert (1 in ids[0]) == (2 in ids[0]) and len(ids[0]) in (6, 7)
    assert splits[3] == split_records(records, 0.7, 3) and splits[3] != splits[4]
    with pytest.raises(ValueError, match="2 images, 1 of them different, are too few for a split"):
        split_records(records[:2], 0.5, 0)


def test_a_split_is_two_outputs(coco, tmp_path):
    paths = coco(count=4)
    outputs = convert_dataset("coco", paths, str(tmp_path / "x.json"), train_share=0.5, seed=1).outputs
    assert outputs == {"train": f"{tmp_path}/x_train.json", "val": f"{tmp_path}/x_val.json"}
    ids = [{record.image_id for record in load_dataset(f"coco:{path}:{paths[1]}")[0]} for path in outputs.values()]
    assert ids[0] | ids[1] == {1, 2, 3, 4} and not ids[0] & ids[1]
    convert_dataset("coco", paths, str(tmp_path / "yolo"), target_format="yolo", train_share=0.5, seed=1)
    assert {len(load_dataset(f"yolo:{tmp_path}/yolo:{split}")[0]) for split in ("train", "val")} == {2}
    convert_dataset("coco", paths, str(tmp_path / "layers"), target_format="layered-tiff", train_share=0.5)
    assert sorted(os.listdir(tmp_path / "layers")) == [".bcnet-files", "train", "val"]


def test_brush_masks_of_cvat_s_coco_export(coco, tmp_path, caplog):
    # As in CVAT's issue 7030: every RLE has iscrowd 1.
    objects = [annotation(1, rle(HOLE), iscrowd=1), annotation(2, [OVER]), annotation(3, [FAR])]
    paths = coco(objects)
    assert len(masks(load_dataset("coco:" + ":".join(paths))[0][0])) == 2
    assert "every RLE is a crowd, and nothing else is: CVAT's COCO export marks brush masks so" in caplog.text
    caplog.clear()
    convert_dataset("coco", paths, str(tmp_path / "objects.json"), crowds_as_objects=True)
    assert "crowds-as-objects" not in caplog.text and "3 missing boxes" in caplog.text
    record = load_dataset(f"coco:{tmp_path}/objects.json:{paths[1]}")[0][0]
    assert np.array_equal(masks(record)[0], coco_mask.decode(rle(HOLE)))
    caplog.clear()
    load_dataset("coco:" + ":".join(coco([*objects, annotation(4, rle(HOLE))])))
    assert "every RLE is a crowd" not in caplog.text


def test_crowds_as_objects_are_of_unknown_order(coco):
    record = with_crowds_as_objects(load_dataset("coco:" + ":".join(coco()))[0][0])
    assert not record.instances[3].iscrowd and record.unordered == (3,)


def test_whole_shapes_become_amodal_masks(coco):
    record = with_amodal_shapes(load_dataset("coco:" + ":".join(coco(OBJECTS[:2])))[0][0])
    behind, front = record.instances
    assert behind.amodal == [SQUARE, FAR] and front.segmentation == [OVER] and front.amodal == [OVER]
    whole, visible = (coco_mask.decode(rle(record, behind)) for rle in (amodal_rle, visible_rle))
    assert np.array_equal(visible, whole & ~coco_mask.decode(visible_rle(record, front)))
    assert behind.bbox == [2, 2, 26, 16] and behind.amodal_bbox == [2, 2, 26, 16]


def test_whole_shapes_need_an_order_only_where_they_overlap(coco, tmp_path):
    box = annotation(4, None, bbox=[1, 1, 20, 15])
    paths = coco([annotation(1, [SQUARE]), annotation(2, [FAR]), box])
    result = convert_dataset("coco", paths, str(tmp_path / "x.json"), amodal_shapes=True)
    assert result.lost == {"amodal masks of objects without a mask": 1}
    instances = load_dataset(f"coco:{tmp_path}/x.json:{paths[1]}")[0][0].instances
    assert [instance.amodal for instance in instances] == [[SQUARE], [FAR], None]
    paths = coco([annotation(1, [SQUARE]), annotation(2, [OVER])])
    with pytest.raises(ValueError, match=r"annotations 1 and 2 of image 1 \(.*1.png\) overlap"):
        convert_dataset("coco", paths, str(tmp_path / "y.json"), amodal_shapes=True)


def test_overwriting_replaces_the_files_of_the_earlier_conversion_alone(coco, tmp_path):
    paths, output = coco(count=6), tmp_path / "yolo"
    options = {"target_format": "yolo", "train_share": 0.5}
    convert_dataset("coco", paths, str(output), **options, seed=1)
    (output / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="yolo exists; pass --overwrite to replace the files that a conversion"):
        convert_dataset("coco", paths, str(output), **options, seed=2)
    convert_dataset("coco", paths, str(output), **options, seed=2, overwrite=True)
    files = [{path.stem for path in output.glob(f"{kind}/{split}/*")} for kind, split in KINDS]
    assert len(files[0]) == len(files[1]) == 3 and not files[0] & files[1] and files[:2] == files[2:]
    assert (output / "notes.txt").read_text() == "mine" and len(os.listdir(tmp_path / "photos")) == 6
    with pytest.raises(ValueError, match="of the data set is in the output folder"):
        convert_dataset("yolo", [str(output), "train"], str(output), target_format="yolo", overwrite=True)
    with pytest.raises(FileExistsError, match="is not empty, and no conversion wrote its files; name a new folder"):
        convert_dataset("coco", paths, str(tmp_path / "photos"), target_format="layered-tiff", overwrite=True)


def test_a_split_does_not_overwrite_unasked(coco, tmp_path):
    paths = coco()
    (tmp_path / "x_val.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"x_val.json exists; pass --overwrite to replace it"):
        convert_dataset("coco", paths, str(tmp_path / "x.json"), train_share=0.5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--from", "voc", "--input", "x"], "folder 'x' not found"),
        (["--from", "xml", "--input", "x"], "the format of a data set is 'xml'; registered are 'ade20k'"),
        (["--from", "lvis", "--input", "a.json"], "the format 'lvis' is read from 'lvis:path/to/annotations.json:path"),
        (["--from", "yolo", "--input", "data.yaml", "--images", "photos"], "--images: the files of yolo say where"),
        (["--from", "bop", "--input", "scene", "--images", "photos"], "--images: the files of bop say where"),
        (
            ["--from", "coco", "--input", "coco.json", "--images", "photos", "--to", "voc"],
            "the format to write is 'voc'",
        ),
        (
            ["--from", "coco", "--input", "coco.json", "--images", "photos", "--split", "80"],
            "above 0 and below 1, got 80.0",
        ),
        (["--from", "coco", "--input", "coco.json", "--images", "photos", "--output", "coco.json"], "coco.json exists"),
    ],
)
def test_command_lines_that_cannot_be_run(coco, tmp_path, monkeypatch, capsys, arguments, message):
    coco()
    monkeypatch.chdir(tmp_path)
    output = [] if "--output" in arguments else ["--output", "out"]
    with pytest.raises(SystemExit):
        main(["data", "convert", *arguments, *output])
    assert message in capsys.readouterr().err


def test_command_says_what_training_or_ultralytics_would_reject(coco, tmp_path, monkeypatch, capsys):
    coco([])
    monkeypatch.chdir(tmp_path)
    source = ["--from", "coco", "--input", "coco.json", "--images"]
    main(["data", "convert", *source, "photos", "--to", "yolo", "--output", "yolo"])
    printed = capsys.readouterr().out
    assert "ultralytics asks for val too" in printed and "no image has an object: training rejects" in printed
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as status:
        main(["data", "convert", *source, "empty", "--output", "x.json"])
    printed = capsys.readouterr()
    assert status.value.code == 1 and "missing: 2 images" in printed.out and "no image was found" in printed.err


def test_command(coco, tmp_path, monkeypatch, capsys):
    coco()
    monkeypatch.chdir(tmp_path)
    source = ["--from", "coco", "--input", "coco.json", "--images", "photos"]
    main(["data", "convert", *source, "--to", "labelme", "--output", "lm"])
    assert "2 images, 4 annotations in lm\nnot in labelme: 1 amodal masks" in capsys.readouterr().out
    main(["data", "convert", "--from", "labelme", "--input", "lm", "--output", "back.json"])
    printed = capsys.readouterr().out
    spec = printed.split("as a data set: ")[1].strip()
    assert "2 images, 3 annotations in back.json" in printed and len(load_dataset(spec)[0][0].instances) == 3
    main(["data", "convert", *source, "--output", "s.json", "--split", "0.5", "--seed", "3", "--amodal-shapes"])
    assert "train: 1 image, " in capsys.readouterr().out
