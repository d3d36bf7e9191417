"""Pictures of many images, from files, folders, patterns and data sets."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from bcnet.config import get_cfg
from bcnet.data import DatasetMapper
from bcnet.maps import PUBLISHED_MAPS
from bcnet.structures import Detections
from bcnet.visualization import draw_predictions, draw_training_data, find_images


def save(path, color=(200, 100, 50), size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return str(path)


def dataset(tmp_path, segmentation=((5, 5, 20, 5, 20, 25, 5, 25),)):
    """Three images: one instance, a crowd alone, nothing."""
    for name in ("one.png", "crowd.png", "none.png"):
        save(tmp_path / "images" / name)
    box = {"bbox": [5, 5, 15, 20], "area": 300, "category_id": 1, "segmentation": [list(p) for p in segmentation]}
    content = {
        "images": [
            {"id": i, "file_name": name, "height": 30, "width": 40}
            for i, name in enumerate(("one.png", "crowd.png", "none.png"), start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {**box, "id": 1, "image_id": 1, "iscrowd": 0},
            {**box, "id": 2, "image_id": 2, "iscrowd": 1},
        ],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    return f"coco:{path}:{tmp_path / 'images'}"


def test_find_images(tmp_path):
    first = save(tmp_path / "folder/a.png")
    second = save(tmp_path / "folder/deeper/b.JPG")
    (tmp_path / "folder/notes.txt").write_text("no image")
    third = save(tmp_path / "c.png")
    assert find_images([str(tmp_path / "folder")]) == [first, second]
    assert find_images([third, str(tmp_path / "*.png"), str(tmp_path / "**/*.png")]) == [third, first]
    assert len(find_images([dataset(tmp_path / "data")])) == 3


@pytest.mark.parametrize("name", ["missing.jpg", "*.jpg", "MODEL.DEVICE"])
def test_inputs_without_images_are_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"no images behind the input"):
        find_images([str(tmp_path / name)])


def predict(image):
    """One detection of the left half, and one of a low score."""
    height, width = image.shape[:2]
    assert image[0, 0, 0] > image[0, 0, 2]  # RGB
    return Detections(
        (height, width),
        torch.tensor([[0.0, 0.0, width / 2, height], [1.0, 1.0, 9.0, 9.0]]),
        torch.tensor([0.9, 0.3]),
        torch.zeros(2, dtype=torch.int64),
        {spec.name: torch.ones(2, 28, 28) for spec in PUBLISHED_MAPS},
        class_names=("cat",),
    )


def test_predictions_go_on_after_unreadable_files(tmp_path, capsys):
    good = save(tmp_path / "a/x.png")
    twin = save(tmp_path / "b/x.png")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    files = [good, str(broken), str(tmp_path / "gone.png"), twin]
    gallery = draw_predictions(predict, files, tmp_path / "out", progress=False)
    assert gallery.drawn == 2 and len(gallery.failures) == 2
    assert "broken.jpg" in gallery.failures[0] and "gone.png" in gallery.failures[1]
    assert "broken.jpg" in capsys.readouterr().out
    assert gallery.summary() == "2 images drawn, 4 pictures written, 2 images failed"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["x_2_layers.jpg", "x_2_maps.png", "x_layers.jpg", "x_maps.png"]
    # Small images are enlarged, for legible labels.
    assert Image.open(tmp_path / "out/x_layers.jpg").width == 3 * 800 + 2 * 12


def test_score_threshold_and_number_of_images(tmp_path):
    files = [save(tmp_path / f"{i}.png") for i in range(3)]
    options = {"max_images": 1, "progress": False}
    gallery = draw_predictions(predict, files, tmp_path / "all", score_threshold=0.1, **options)
    assert gallery.drawn == 1
    tall = Image.open(gallery.pictures[1]).height
    short = Image.open(draw_predictions(predict, files, tmp_path / "one", **options).pictures[1]).height
    assert short < tall  # one line rather than two
    none = draw_predictions(predict, files, tmp_path / "none", score_threshold=0.95, **options)
    assert [path.endswith("_layers.jpg") for path in none.pictures] == [True]


def mapper(**changes):
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    cfg.INPUT.RANDOM_FLIP = "none"
    for key, value in changes.items():
        setattr(cfg.INPUT, key, value)
    return DatasetMapper.from_config(cfg, training=True)


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_training_data(tmp_path, image_format):
    spec = dataset(tmp_path)
    gallery = draw_training_data(mapper(FORMAT=image_format), spec, tmp_path / "out", progress=False)
    assert gallery.drawn == 1 and gallery.failures == []
    assert [path.rsplit("/", 1)[1] for path in gallery.pictures] == ["one_layers.jpg", "one_maps.png"]
    panels = np.asarray(Image.open(gallery.pictures[0])).astype(int)
    red, _, blue = panels[-20, 780]  # right lower corner of the first panel: the image's own colour
    assert red - blue > 100


def test_annotations_that_cannot_be_used_are_reported(tmp_path):
    spec = dataset(tmp_path)
    save(tmp_path / "images/one.png", size=(20, 20))  # not the size that the json says
    gallery = draw_training_data(mapper(), spec, tmp_path / "out", progress=False)
    assert gallery.drawn == 0
    assert "one.png" in gallery.failures[0] and "20 x 20" in gallery.failures[0]
