"""Pictures of many images, from files, folders, patterns and data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bcnet.config import get_cfg
from bcnet.data import DatasetMapper, load_dataset
from bcnet.data.synthetic import SceneConfig, generate_dataset
from bcnet.maps import OCCLUDEE_AMODAL, PUBLISHED_MAPS, required_layers
from bcnet.structures import Detections, InstanceMasks, Targets
from bcnet.visualization import draw_heat_maps, draw_layers, draw_predictions, draw_training_data, style
from bcnet.visualization.gallery import Gallery, output_names
from bcnet.visualization.training_data import detections_from_targets


def save(path, color=(200, 100, 50), size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return str(path)


def picture_size(path):
    """(width, height) of an image file."""
    with Image.open(path) as picture:
        return picture.size


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


def test_predictions_go_on_after_unreadable_files(tmp_path, caplog):
    good = save(tmp_path / "a/x.png")
    twin = save(tmp_path / "b/x.png")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    files = [good, str(broken), str(tmp_path / "gone.png"), twin]
    gallery = draw_predictions(predict, files, tmp_path / "out", progress=False)
    assert gallery.drawn == 2 and len(gallery.failures) == 2
    assert list(gallery.failures) == files[1:3]
    assert all(file in message for file, message in gallery.failures.items())
    assert [record.getMessage() for record in caplog.records] == list(gallery.failures.values())
    assert gallery.summary() == "2 images drawn, 4 pictures written, 2 images failed"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["x_2_layers.jpg", "x_2_maps.png", "x_layers.jpg", "x_maps.png"]
    # Small images are enlarged, for legible labels.
    assert picture_size(tmp_path / "out/x_layers.jpg")[0] == 3 * 800 + 2 * 12


def test_predictions_go_on_after_an_image_that_fails(tmp_path):
    def failing(image):
        if image.shape == (30, 40, 3):
            raise RuntimeError("out of memory")
        return predict(image)

    files = [save(tmp_path / "a.png"), save(tmp_path / "b.png", size=(41, 30))]
    gallery = draw_predictions(failing, files, tmp_path / "out", progress=False)
    assert gallery.drawn == 1
    assert gallery.failures == {files[0]: f"{files[0]}: RuntimeError: out of memory"}


def test_a_folder_that_cannot_be_written_ends_the_job(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match="out"):
        draw_predictions(predict, [save(tmp_path / "a.png")], tmp_path / "out", progress=False)


def test_names_of_pictures():
    sources = ["a/x.png", "b/x.png", "c/x_2.jpg", "d/X.jpg", "webcam:1", "https://host/y%20z.jpg?token=a/secret.png"]
    assert output_names(sources) == ["x.png", "x.png_2", "x_2", "X.jpg", "webcam_1", "y z"]
    assert output_names(["a/x.png", "b/x.png", "c/x_2.png"]) == ["x", "x_2", "x_2_2"]
    strange = ["https://host/?id=3", "https://host/a%2F..%2F%3Fq.png", f"{'é' * 120}.png"]
    assert output_names(strange) == ["image", "_q", "é" * 100]


def test_score_threshold_and_number_of_images(tmp_path):
    files = [save(tmp_path / f"{i}.png") for i in range(3)]
    options = {"max_images": 1, "progress": False}
    gallery = draw_predictions(predict, files, tmp_path / "all", score_threshold=0.1, **options)
    assert gallery.drawn == 1
    _, tall = picture_size(gallery.pictures[1])
    _, short = picture_size(draw_predictions(predict, files, tmp_path / "one", **options).pictures[1])
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
    assert gallery.drawn == 1 and not gallery.failures
    assert [path.rsplit("/", 1)[1] for path in gallery.pictures] == ["one_layers.jpg", "one_maps.png"]
    panels = np.asarray(Image.open(gallery.pictures[0])).astype(int)
    red, _, blue = panels[600, 780]  # right lower corner of the first panel: the image's own colour
    assert red - blue > 100


def test_training_data_of_a_detector_without_masks(tmp_path):
    spec = dataset(tmp_path)
    file = tmp_path / "annotations.json"
    file.write_text(file.read_text().replace("[5, 5, 15, 20]", "[0, 0, 20, 25]"))  # in the corner of the image
    boxes = mapper()
    boxes.with_masks = False
    gallery = draw_training_data(boxes, spec, tmp_path / "out", progress=False)
    assert gallery.drawn == 1 and not gallery.failures
    assert [path.rsplit("/", 1)[1] for path in gallery.pictures] == ["one_layers.jpg"]  # no maps, no sheet of them


def test_annotations_that_cannot_be_used_are_reported(tmp_path):
    spec = dataset(tmp_path)
    save(tmp_path / "images/one.png", size=(20, 20))  # not the size that the json says
    gallery = draw_training_data(mapper(), spec, tmp_path / "out", progress=False)
    assert gallery.drawn == 0
    (message,) = gallery.failures.values()
    assert "one.png" in message and "20 x 20" in message


def test_unknown_pixels_of_targets_are_hatched_and_amodal_targets_have_a_panel():
    occludee = torch.zeros(1, 60, 60, dtype=torch.uint8)
    occludee[:, 10:50, 10:30] = 1
    unknown = torch.zeros_like(occludee)
    unknown[:, 10:50, 30:50] = 1
    layers = {"occludee": occludee, "occluder": torch.zeros_like(occludee), "occluder_unknown": unknown}
    layers |= {"amodal": occludee, "amodal_unknown": unknown}
    image = np.full((60, 60, 3), 120, np.uint8)

    def drawn(names):
        masks = InstanceMasks.from_full({name: layers[name] for name in names})
        targets = Targets(torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([0]), masks)
        detections = detections_from_targets(targets, (60, 60), ("cup",), 40)
        panels = draw_layers(image, detections, long_side=240, scores=False, columns=9, keep_places=True)
        return panels, draw_heat_maps(image, detections)[0]

    known_panels, known_maps = drawn(("occludee", "occluder"))
    panels, maps = drawn(("occludee", "occluder", "occluder_unknown"))
    assert panels.shape[1] == known_panels.shape[1] and maps.shape == known_maps.shape
    grey = np.round(0.2 * 80 + 0.8 * np.array(style.UNKNOWN))  # on the faded image
    changed = (panels[-240:] == grey).all(axis=2)
    rows, columns = np.nonzero(changed)
    # In the second panel, over the right half of the box, and not all of it: lines.
    assert 252 + 4 * 30 <= columns.min() and columns.max() < 252 + 4 * 50
    assert 0.1 < changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].mean() < 0.6
    assert (maps == style.UNKNOWN).all(axis=2).sum() > 2 * (known_maps == style.UNKNOWN).all(axis=2).sum() + 1000
    with_amodal, more_maps = drawn(tuple(layers))
    assert with_amodal.shape[1] == panels.shape[1] + 252 and more_maps.shape[1] > maps.shape[1]
    known_amodal, _ = drawn(tuple(name for name in layers if name != "amodal_unknown"))
    assert (with_amodal[-240:, -240:] != known_amodal[-240:, -240:]).any(axis=2)[:, 120:200].mean() > 0.05


def test_pictures_of_composed_images_show_the_unknown_pixels_of_the_amodal_mask(tmp_path):
    folder = tmp_path / "scenes"
    annotations = generate_dataset(str(folder), 4, SceneConfig.preset("easy"), split="train")
    content = json.loads(Path(annotations).read_text())
    for annotation in content["annotations"]:
        for key in [key for key in annotation if "amodal" in key or key in ("depth", "hidden_fraction")]:
            del annotation[key]
    Path(annotations).write_text(json.dumps(content))
    records, info = load_dataset(f"coco:{annotations}:{folder / 'images'}")
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    layers = required_layers((*PUBLISHED_MAPS, OCCLUDEE_AMODAL))
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gallery, "add", lambda self, name, image, detections, **_: drawn.append(detections))
        draw_training_data(DatasetMapper.from_config(cfg, True, layers=layers), (records, info), tmp_path / "out")
    assert all("amodal_target_unknown" in detections.maps for detections in drawn)
    assert any(detections.maps["amodal_target_unknown"].any() for detections in drawn)
