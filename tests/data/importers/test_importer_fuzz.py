"""Fuzzing of the importers: any content gives either records or a ValueError that names the file or folder."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from json_damage import damaged
from PIL import Image

from bcnet.data import DatasetInfo, ImageRecord, load_dataset
from bcnet.data.importers.label_studio_rle import encode_brush
from bcnet.data.source_masks import missing_masks, source_masks

SIZE = (12, 16)
MASK = np.zeros(SIZE, dtype=bool)
MASK[2:6, 3:9] = True
SQUARE = [[2, 2], [9, 2], [9, 8], [2, 8]]
FEW = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def png(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(kind="polygon", points=SQUARE, **more):
    return {"label": "cup", "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def region(kind, number, **value):
    sizes = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {"id": number, "type": f"{kind}labels", "value": {**value, f"{kind}labels": ["cup"]}, **sizes}


JSONS = {
    "labelme": {
        "shapes": [
            shape(),
            shape(group_id=1),
            shape("rectangle", [[1, 1], [5, 6]], group_id=1, flags={"occluded": True}),
            shape("circle", [[6, 6], [8, 6]]),
            shape("mask", [[3, 2], [8, 5]], mask=png(MASK[2:6, 3:9]), group_id=1),
        ],
        "imagePath": "a.png",
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    },
    "label-studio": [
        {
            "id": 1,
            "data": {"image": "/data/upload/a.png"},
            "annotations": [
                {
                    "result": [
                        region("polygon", "a", points=[[10, 10], [50, 10], [50, 60]]),
                        region("brush", "b", format="rle", rle=encode_brush(MASK)),
                        region("ellipse", "c", x=50, y=50, radiusX=10, radiusY=20, rotation=30),
                        region("rectangle", "d", x=10, y=10, width=30, height=30, rotation=10),
                    ]
                }
            ],
        }
    ],
    "lvis": {
        "images": [{"id": 1, "coco_url": "http://x/train2017/a.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 7, 6], "area": 42}
            | {"segmentation": [[2, 2, 9, 2, 9, 8]], "in_front": [2]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [2, 2, 7, 6], "area": 42}
            | {"segmentation": [[2, 2, 9, 2, 9, 8]], "in_front": [], "attributes": {"occluded": False}},
        ],
    },
    "bop": {"0": [{"obj_id": 3}, {"obj_id": 5}]},
    "ade20k": {
        "annotation": {
            "filename": "a.png",
            "imsize": [*SIZE, 3],
            "object": [
                {"name": "cup", "name_ndx": 4, "occluded": "yes", "parts": {"part_level": 0}}
                | {"instance_mask": "mask/000000_000000.png", "polygon": {"x": [2, 9, 9], "y": [2, 2, 8]}},
                {"name": "tea", "name_ndx": 2, "occluded": [], "parts": {"part_level": 0}}
                | {"instance_mask": None, "polygon": {"x": [2, 9, 9], "y": [2, 2, 8]}},
            ],
        }
    },
}
SPECS = {
    "labelme": "labelme:{}/fuzz",
    "label-studio": "label-studio:{}/fuzz/x.json:{}/fuzz",
    "lvis": "lvis:{}/fuzz/x.json:{}/fuzz",
    "bop": "bop:{}/fuzz",
    "ade20k": "ade20k:{}/fuzz",
}


@pytest.fixture
def folder(tmp_path):
    """A folder with the images and masks that the files name; the files are written into it."""
    root = tmp_path / "fuzz"
    for name in ("a.png", "rgb/000000.png", "images/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*SIZE, 3), dtype=np.uint8)).save(root / name)
    for parent in ("mask", "mask_visib"):
        (root / parent).mkdir()
        for number in range(2):
            Image.fromarray(MASK.astype(np.uint8) * 255).save(root / parent / f"000000_{number:06d}.png")
    return root


def write_json(folder, format, content):
    (folder / ("scene_gt.json" if format == "bop" else "x.json")).write_text(json.dumps(content))


def check(spec, folder):
    try:
        records, info = load_dataset(spec)
    except ValueError as error:
        assert folder.name in str(error)
        return None
    assert isinstance(info, DatasetInfo) and all(isinstance(record, ImageRecord) for record in records)
    for record in records:
        assert all(0 <= instance.category < info.num_classes for instance in record.instances)
        count = len(record.instances)
        assert all(0 <= i < count and 0 <= j < count and i != j for i, j in record.in_front or ())
        if not missing_masks(record):
            source_masks(record)
    return records


@pytest.mark.parametrize("format", JSONS)
def test_the_undamaged_jsons_are_valid(folder, format):
    write_json(folder, format, JSONS[format])
    (record,) = check(SPECS[format].replace("{}", str(folder.parent)), folder)
    assert len(record.instances) > 1


@pytest.mark.parametrize("format", JSONS)
@given(data=st.data())
@FEW
def test_jsons(folder, format, data):
    write_json(folder, format, data.draw(damaged(JSONS[format])))
    check(SPECS[format].replace("{}", str(folder.parent)), folder)


tokens = st.sampled_from(["0", "1", "7", "-1", "0.5", "1e3", "nan", "x", "", "0.1 0.1 0.4 0.1 0.4 0.6", "\t", "\u00e9"])
lines = st.lists(st.lists(tokens, max_size=8).map(" ".join), max_size=4).map("\n".join)
yamls = st.one_of(
    st.just("train: images\nnames: [cup, tea]"),
    st.lists(
        st.sampled_from(["train: images", "train: [", "names: {1: cup}", "names: 3", "path: x", "- a", "val: []"])
    ).map("\n".join),
)


@given(text=lines, yaml=yamls)
@FEW
def test_yolo(folder, text, yaml):
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels/a.txt").write_text(text, encoding="utf-8")
    (folder / "data.yaml").write_text(yaml)
    try:
        check(f"yolo:{folder}/data.yaml", folder)
    except FileNotFoundError as error:
        assert "data.yaml" in str(error)


POLYGON = '<polygon label="cup" points="1,2;9,2;9,9"/>'
names = st.sampled_from(["polygon", "mask", "box", "ellipse", "points", "star", "image"])
keys = ["label", "points", "rle", "left", "top", "width", "height", "z_order", "group_id", "occluded", "xtl", "ytl"]
keys += ["xbr", "ybr", "rotation", "cx", "cy", "rx", "ry"]
texts = st.sampled_from(
    ["cup", "0", "1", "2", "3.5", "-1", "nan", "1e400", "", "1,2;9,2;9,9", "1,2;x", "0,4", "1,2,1", "a b"]
)
shapes = st.lists(st.tuples(names, st.dictionaries(st.sampled_from(keys), texts)), max_size=4)


@given(shapes, st.sampled_from(['width="16" height="12"', "", 'width="0" height="x"']))
@FEW
def test_cvat(folder, shapes, size):
    elements = "".join(f"<{tag} {' '.join(f'{k}={v!r}' for k, v in values.items())}/>" for tag, values in shapes)
    xml = f'<annotations><image name="a.png" {size}>{elements}{POLYGON}</image></annotations>'
    (folder / "annotations.xml").write_text(xml)
    check(f"cvat:{folder}/annotations.xml", folder)


pixels = arrays(
    st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, bool]),
    st.one_of(st.just(SIZE), array_shapes(min_dims=2, max_dims=2, max_side=20)),
)


@given(pixels, st.sampled_from(["png", "tif", "bmp"]))
@FEW
def test_label_images(folder, values, suffix):
    (folder / "masks").mkdir(exist_ok=True)
    for path in (folder / "masks").iterdir():
        path.unlink()
    try:
        Image.fromarray(values).save(folder / f"masks/a.{suffix}")
    except (OSError, TypeError, DeprecationWarning):  # the file format has no such values
        return
    check(f"label-images:{folder}/masks:{folder}/images", folder)


@given(st.binary(max_size=60), st.sampled_from(["x.json", "annotations.xml", "data.yaml", "masks/a.png"]))
@FEW
def test_files_of_any_bytes(folder, content, name):
    (folder / "masks").mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    specs = [spec for format, spec in SPECS.items() if format != "bop"]
    specs += ["cvat:{}/fuzz/annotations.xml", "yolo:{}/fuzz/data.yaml", "label-images:{}/fuzz/masks:{}/fuzz/images"]
    for spec in specs:
        try:
            check(spec.replace("{}", str(folder.parent)), folder)
        except FileNotFoundError:
            assert name != "x.json" or "x.json" not in spec
