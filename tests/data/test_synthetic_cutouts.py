"""Synthetic scenes composed of cut-outs, from a small COCO data set created here."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from bcnet.data import UnreadableImageError
from bcnet.data.synthetic import CutoutLibrary, SceneConfig, generate_dataset, render_cutout_scene
from bcnet.data.synthetic.cutouts import _fill

RED, GREEN, GREY = (230, 20, 20), (20, 230, 20), (120, 120, 120)
CONFIG = SceneConfig(image_size=96, min_visible_pixels=40, noise=0, shadow=0.0)


def box_polygon(x: int, y: int, width: int, height: int) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def rle(height: int, width: int, box: tuple[int, int, int, int]) -> dict:
    mask = np.zeros((height, width), np.uint8, order="F")
    x, y, w, h = box
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@pytest.fixture
def source(tmp_path):
    """Grey images with red objects (category 7) and green ones (category 3), some of them unusable."""
    folder = tmp_path / "source"
    folder.mkdir()
    boxes = [  # image, category, box, colour, kind of segmentation
        (0, 7, (20, 20, 60, 50), RED, "polygon"),
        (0, 3, (90, 40, 50, 70), GREEN, "rle"),
        (0, 3, (100, 5, 10, 10), GREEN, "polygon"),  # small
        (1, 7, (0, 30, 60, 60), RED, "polygon"),  # cut off by the border
        (1, 3, (80, 20, 50, 60), GREEN, "parts"),
        (1, 7, (70, 100, 60, 50), RED, "crowd"),
    ]
    images, annotations = [], []
    for image_id in (0, 1):
        picture = np.full((160, 170, 3), GREY, np.uint8)
        for owner, _, (x, y, w, h), colour, _ in boxes:
            if owner == image_id:
                picture[y : y + h, x : x + w] = colour
        cv2.imwrite(str(folder / f"{image_id}.png"), picture[..., ::-1])
        images.append({"id": image_id, "file_name": f"{image_id}.png", "height": 160, "width": 170})
    for annotation_id, (image_id, category, (x, y, w, h), _, kind) in enumerate(boxes, start=1):
        segmentation = box_polygon(x, y, w, h)
        if kind == "parts":
            segmentation = box_polygon(x, y, w, h // 2) + box_polygon(x, y + h // 2, w, h - h // 2)
        elif kind in ("rle", "crowd"):
            segmentation = rle(160, 170, (x, y, w, h))
        annotations.append(
            {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": int(kind == "crowd"),
                "segmentation": segmentation,
            }
        )
    categories = [{"id": 7, "name": "red thing"}, {"id": 3, "name": "green thing"}]
    path = tmp_path / "source.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path), str(folder)


def test_what_can_be_cut_out(source):
    assert len(CutoutLibrary.from_files(*source).templates) == 2
    assert len(CutoutLibrary.from_files(*source, whole_only=False).templates) == 4
    assert len(CutoutLibrary.from_files(*source, whole_only=False, min_pixels=100).templates) == 5
    with pytest.raises(ValueError, match=r"source\.json: none of the 6 instances .* at least 9000 pixels"):
        CutoutLibrary.from_files(*source, min_pixels=9000)


def test_scenes_are_exact_and_look_like_their_source(source):
    library = CutoutLibrary.from_files(*source)
    received = pickle.loads(pickle.dumps(library))  # as sent to spawned workers
    for index in range(8):
        scene = render_cutout_scene(library, CONFIG, 0, index)
        again = render_cutout_scene(received, CONFIG, 0, index)
        np.testing.assert_array_equal(scene.image, again.image)
        in_front = np.zeros((96, 96), bool)
        assert scene.objects
        for depth, thing in enumerate(scene.objects):
            assert thing.depth == depth
            np.testing.assert_array_equal(thing.visible_mask, thing.amodal_mask & ~in_front)
            in_front |= thing.amodal_mask
            colour = np.median(scene.image[thing.visible_mask], axis=0)
            assert np.argmax(colour) == {7: 0, 3: 1}[thing.category_id]
        # No unannotated object: outside the objects there is neither red nor green.
        free = cv2.dilate(in_front.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
        background = scene.image[free].astype(int)
        assert np.abs(background - background.mean(axis=1, keepdims=True)).max() < 25


def test_data_set_of_cutouts(source, tmp_path):
    library = CutoutLibrary.from_files(*source)
    serial = generate_dataset(tmp_path / "serial", 20, CONFIG, library=library)
    parallel = generate_dataset(tmp_path / "parallel", 20, CONFIG, workers=2, library=library)
    with open(serial, "rb") as first, open(parallel, "rb") as second:
        assert first.read() == second.read()
    coco = COCO(serial)
    assert coco.dataset["categories"] == [{"id": 3, "name": "green thing"}, {"id": 7, "name": "red thing"}]
    assert {annotation["category_id"] for annotation in coco.dataset["annotations"]} == {3, 7}
    assert generate_dataset(tmp_path / "serial", 20, CONFIG, library=CutoutLibrary.from_files(*source)) == serial
    with pytest.raises(FileExistsError, match=r"source is .*whole_only"):
        generate_dataset(tmp_path / "serial", 20, CONFIG, library=CutoutLibrary.from_files(*source, whole_only=False))
    with pytest.raises(FileExistsError, match="source is"):
        generate_dataset(tmp_path / "serial", 20, CONFIG)


def test_bad_sources(source, tmp_path):
    annotation_file, folder = source
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        CutoutLibrary.from_files(str(tmp_path / "nowhere.json"), folder)
    library = CutoutLibrary.from_files(annotation_file, folder)
    cv2.imwrite(f"{folder}/0.png", np.zeros((10, 12, 3), np.uint8))
    with pytest.raises(ValueError, match=r"0\.png' is 12 x 10 pixels .* says 170 x 160"):
        render_cutout_scene(library, CONFIG, 0, 0)
    (tmp_path / "source" / "0.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"cannot read the image '.*0\.png': No such file"):
        render_cutout_scene(library, CONFIG, 0, 0)


def test_fill_continues_the_surroundings():
    picture = np.full((60, 60, 3), 80, np.float32)
    picture[20:35, 20:35] = 250
    hole = np.zeros((60, 60), np.uint8)
    hole[20:35, 20:35] = 255
    np.testing.assert_allclose(_fill(picture, hole), 80, atol=0.5)
    untouched = _fill(picture, np.zeros((60, 60), np.uint8))
    np.testing.assert_array_equal(untouched, picture)
    assert np.isfinite(_fill(picture, np.full((60, 60), 255, np.uint8))).all()
