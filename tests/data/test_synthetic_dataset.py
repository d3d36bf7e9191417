"""Synthetic data set on disk: bytes independent of workers and count, atomic writing, readable as COCO."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from bcnet.data.coco import load_coco
from bcnet.data.synthetic import (
    CLASS_NAMES,
    SceneConfig,
    generate_dataset,
    occlusion_statistics,
    render_scene,
    scene_annotations,
)
from bcnet.data.synthetic import dataset as dataset_module

CONFIG = SceneConfig(image_size=80, min_visible_pixels=40)
TOOL = Path(__file__).parents[2] / "tools" / "make_synthetic.py"


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_same_bytes_for_any_number_of_workers(tmp_path):
    for workers in (0, 2, 3):
        generate_dataset(tmp_path / str(workers), 20, CONFIG, seed=5, workers=workers)
    expected = files_of(tmp_path / "0")
    assert len(expected) == 21
    assert files_of(tmp_path / "2") == expected
    assert files_of(tmp_path / "3") == expected


def test_a_scene_does_not_depend_on_the_count(tmp_path):
    few = json.loads(Path(generate_dataset(tmp_path / "few", 3, CONFIG, seed=5)).read_text())
    many = json.loads(Path(generate_dataset(tmp_path / "many", 9, CONFIG, seed=5)).read_text())
    assert many["images"][:3] == few["images"]
    assert [a for a in many["annotations"] if a["image_id"] < 3] == few["annotations"]
    for image in few["images"]:
        name = Path("images") / image["file_name"]
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_files_hold_the_rendered_scenes(tmp_path):
    annotation_file = generate_dataset(tmp_path, 6, CONFIG, seed=1, split="val")
    assert annotation_file == os.path.join(tmp_path, "annotations", "val.json")
    coco = COCO(annotation_file)
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASS_NAMES)
    for index in range(6):
        scene = render_scene(CONFIG, 1, index, split="val")
        image = cv2.imread(str(tmp_path / "images" / coco.imgs[index]["file_name"]))
        np.testing.assert_array_equal(image[..., ::-1], scene.image)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=index))
        assert len(annotations) == len(scene.objects)
        for annotation, thing in zip(annotations, scene.objects, strict=True):
            mask = coco.annToMask(annotation)
            np.testing.assert_array_equal(mask, thing.visible_mask)
            np.testing.assert_array_equal(coco_mask.decode(annotation["amodal_segmentation"]), thing.amodal_mask)
            assert annotation["area"] == mask.sum() == coco_mask.area(annotation["segmentation"])
            assert annotation["amodal_area"] == coco_mask.area(annotation["amodal_segmentation"])
            assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
            assert annotation["amodal_bbox"] == coco_mask.toBbox(annotation["amodal_segmentation"]).tolist()
            assert annotation["hidden_fraction"] == 1 - annotation["area"] / annotation["amodal_area"]
            assert (annotation["depth"], annotation["category_id"]) == (thing.depth, thing.category_id)
    ids = [annotation["id"] for annotation in coco.dataset["annotations"]]
    assert min(ids) >= 1 and len(set(ids)) == len(ids)


def test_our_reader_reads_it(tmp_path):
    annotation_file = generate_dataset(tmp_path, 4, CONFIG)
    records, info = load_coco(annotation_file, str(tmp_path / "images"))
    assert info.class_names == CLASS_NAMES
    assert all(os.path.isfile(record.file_name) for record in records)
    for record, scene in zip(records, (render_scene(CONFIG, 0, i) for i in range(4)), strict=True):
        assert [instance.category + 1 for instance in record.instances] == [t.category_id for t in scene.objects]
        assert all(instance.amodal is not None for instance in record.instances)
        count = len(scene.objects)
        assert sorted(record.in_front) == [(back, front) for back in range(count) for front in range(back)]


def test_a_complete_data_set_is_used_as_it_is(tmp_path, monkeypatch):
    annotation_file = generate_dataset(tmp_path, 4, CONFIG)
    before = files_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(dataset_module, "_run", lambda *args: pytest.fail("drawn again"))
        assert generate_dataset(tmp_path, 4, CONFIG, workers=2) == annotation_file
    assert files_of(tmp_path) == before
    # With an image missing it is not complete.
    (tmp_path / "images" / "train" / "000002.png").unlink()
    generate_dataset(tmp_path, 4, CONFIG)
    assert files_of(tmp_path) == before


def test_other_parameters_are_an_error_unless_overwritten(tmp_path):
    generate_dataset(tmp_path, 4, CONFIG)
    with pytest.raises(FileExistsError, match=r"train\.json exists with other parameters: seed is 0, not 1\. Choose"):
        generate_dataset(tmp_path, 4, CONFIG, seed=1)
    with pytest.raises(FileExistsError, match="count is 4, not 3; noise is 5, not 0"):
        generate_dataset(tmp_path, 3, SceneConfig(image_size=80, min_visible_pixels=40, noise=0))
    generate_dataset(tmp_path, 3, CONFIG, seed=1, overwrite=True)
    fresh = tmp_path / "fresh"
    generate_dataset(fresh, 3, CONFIG, seed=1)
    expected = files_of(fresh)
    assert {name: data for name, data in files_of(tmp_path).items() if not name.startswith("fresh")} == expected


@pytest.mark.parametrize("content", ["[1, 2", "[]", '{"info": {"description": "COCO"}, "images": []}'])
def test_files_of_other_origin_are_never_touched(tmp_path, content):
    (tmp_path / "a" / "annotations").mkdir(parents=True)
    (tmp_path / "a" / "annotations" / "train.json").write_text(content)
    (tmp_path / "b" / "images" / "train").mkdir(parents=True)
    (tmp_path / "b" / "images" / "train" / "000000000030.jpg").write_bytes(b"a photograph")
    before = files_of(tmp_path)
    for folder in ("a", "b"):
        for overwrite in (False, True):
            with pytest.raises(FileExistsError, match="not generated by bcnet; choose another folder or split"):
                generate_dataset(tmp_path / folder, 2, CONFIG, overwrite=overwrite)
    assert files_of(tmp_path) == before


def test_an_interrupted_run_leaves_no_json(tmp_path, monkeypatch):
    def render_or_stop(config, seed, index, split):
        if index == 2:
            raise KeyboardInterrupt
        return render_scene(config, seed, index, split)

    generate_dataset(tmp_path, 4, CONFIG)
    expected = files_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(dataset_module, "render_scene", render_or_stop)
        with pytest.raises(KeyboardInterrupt):
            generate_dataset(tmp_path, 4, CONFIG, seed=1, overwrite=True)
    assert list((tmp_path / "annotations").iterdir()) == []
    generate_dataset(tmp_path, 4, CONFIG)  # the remaining images are recognised as generated
    assert files_of(tmp_path) == expected


def test_splits_of_one_seed_differ_and_coexist(tmp_path):
    generate_dataset(tmp_path, 2, CONFIG)
    generate_dataset(tmp_path, 2, CONFIG, split="val")
    files = files_of(tmp_path)
    assert len(files) == 6
    train, val = (os.path.join("images", split, "000000.png") for split in ("train", "val"))
    assert files[train] != files[val]


def test_jpeg_stays_close(tmp_path):
    config = SceneConfig(image_size=80, min_visible_pixels=40, image_format="jpg")
    generate_dataset(tmp_path, 1, config)
    image = cv2.imread(str(tmp_path / "images" / "train" / "000000.jpg"))[..., ::-1].astype(int)
    assert np.abs(image - render_scene(config, 0, 0).image).mean() < 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"count": 1, "seed": -1}, "seed is -1"),
        ({"count": 1, "split": "../x"}, "split is '../x'"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_dataset(tmp_path / "data", **arguments)
    assert not (tmp_path / "data").exists()


def test_scene_without_objects():
    scene = render_scene(SceneConfig(image_size=32, min_visible_pixels=1024), 0, 0)
    assert scene.objects == [] and scene_annotations(scene, 0) == []


def test_occlusion_statistics_of_a_hand_made_file(tmp_path):
    def annotation(annotation_id, image_id, category_id, columns, hidden_fraction):
        mask = np.zeros((4, 8), np.uint8, order="F")
        mask[:, columns] = 1
        rle = coco_mask.encode(mask)
        rle["counts"] = rle["counts"].decode()
        return {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [columns.start, 0, columns.stop - columns.start, 4],
            "segmentation": rle,
            "amodal_segmentation": rle,
            "hidden_fraction": hidden_fraction,
        }

    annotations = [
        annotation(1, 0, 1, slice(0, 4), 0.0),
        annotation(2, 0, 1, slice(3, 6), 1 / 3),
        annotation(3, 0, 2, slice(5, 8), 1 / 3),
        annotation(4, 1, 1, slice(0, 4), 0.0),
        annotation(5, 1, 1, slice(0, 8), 1.0) | {"iscrowd": 1},
    ]
    content = {
        "images": [{"id": image_id, "height": 4, "width": 8} for image_id in (0, 1)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": annotations,
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    statistics = occlusion_statistics(path)
    assert (statistics.images, statistics.objects) == (2, 4)
    assert statistics.mean_hidden_fraction == pytest.approx(1 / 6)
    assert statistics.occluded_share == statistics.heavily_occluded_share == 0.5
    assert statistics.overlapping_pairs_per_image == 1.0
    assert statistics.same_class_pair_share == 0.5
    assert "50.0% of the objects occluded" in str(statistics)
    del annotations[1]["hidden_fraction"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a\.json: annotation 2 has no hidden_fraction"):
        occlusion_statistics(path)


def test_tool(tmp_path, monkeypatch, capsys):
    output = str(tmp_path / "data")
    words = ["--output", output, "--count", "3", "--size", "96", "--workers", "1", "--difficulty", "easy"]
    monkeypatch.setattr(sys, "argv", [str(TOOL), *words])
    runpy.run_path(str(TOOL), run_name="__main__")
    printed = capsys.readouterr().out
    assert "3 images" in printed and f"coco:{output}/annotations/train.json:{output}/images" in printed
    info = json.loads((tmp_path / "data" / "annotations" / "train.json").read_text())["info"]
    assert SceneConfig(**info["config"]) == SceneConfig.preset("easy", image_size=96)
