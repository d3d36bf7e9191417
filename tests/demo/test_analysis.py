"""State and pictures of the demo, without a web framework."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import small_config
from small_predictors import predictor

from bcnet.demo import Analysis, analyse
from bcnet.demo.analysis import PICTURE_SIDE, check_model, example_images, read_upload
from bcnet.modeling import build_model
from bcnet.prediction import Predictor
from bcnet.structures import Detections
from bcnet.visualization import draw_detections, draw_heat_maps
from bcnet.visualization.style import instance_color

SIZE = (60, 90)  # pictures are ten times as large
SVG = "{http://www.w3.org/2000/svg}"
BOXES = torch.tensor([[10, 10, 50, 50], [30, 20, 80, 55], [20, 20, 30, 30]], dtype=torch.float32)


def analysis(*, amodal: bool = True, names=("cup", "<plate>", "a & b")) -> Analysis:
    """Three objects: 1 in front of 0, which has a hidden part on its right; 2 is small and lies on 0."""
    visible = torch.ones(3, 28, 28)
    visible[0, :, 14:] = 0  # columns 30..49 of the image
    maps = {"occludee_mask": visible, "occluder_mask": 1 - visible}
    if amodal:
        maps["occludee_amodal"] = torch.full((3, 28, 28), 0.8)
    occluded_by = torch.zeros(3, 3)
    occluded_by[0, 1] = 0.9
    scores = torch.tensor([0.9, 0.6, 0.3])
    found = Detections(SIZE, BOXES, scores, torch.arange(3), maps, occluded_by=occluded_by, class_names=names)
    return Analysis(np.full((*SIZE, 3), 120, np.uint8), "photo.jpg", found)


def test_one_prediction_serves_all_thresholds(monkeypatch):
    model = predictor(MODEL__BILAYER__AMODAL=True)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    wanted = [(score, mask) for score in (0.05, 0.3, 0.34, 0.9) for mask in (0.3, 0.5)]
    expected = [
        model(image, format="RGB", with_occluder=True, score_threshold=score, mask_threshold=mask)
        for score, mask in wanted
    ]
    shown = analyse(model, image, "photo.jpg")
    monkeypatch.setattr(model, "predict", None)  # from here on nothing is predicted
    for thresholds, detections in zip(wanted, expected, strict=True):
        assert shown.view(*thresholds).detections == detections
    assert len({len(detections) for detections in expected}) > 1, "the thresholds change nothing"
    for thresholds in ((1.2, 0.5), (0.5, -0.1)):
        with pytest.raises(ValueError, match=r"threshold must lie in 0\.\.1, got"):
            shown.view(*thresholds)


def test_the_picture_is_that_of_draw_detections():
    shown = analysis()
    view = shown.view(0.05)
    picture = draw_detections(shown.image, shown.detections, long_side=PICTURE_SIDE, numbered=True)
    assert np.array_equal(view.picture, picture) and view.picture.shape == (600, 900, 3)
    for name in ("amodal", "occluder", "order"):
        panel = view.panel(name)
        assert panel.picture is not None and panel.picture.shape[1] == 900 and not panel.sentence


def test_sentences_where_there_is_nothing_to_draw():
    nothing = analysis().view(0.95)
    assert len(nothing.detections) == 0 and nothing.picture.shape == (600, 900, 3)
    for name in ("amodal", "occluder", "order"):
        assert nothing.panel(name).picture is None and "there is no object" in nothing.panel(name).sentence
    assert nothing.heat_maps(None).sentence == "Click an object in the picture to see its heat maps."
    assert nothing.position_at(450, 300) is None
    assert "there is no object" in nothing.order_graph()
    assert analysis(amodal=False).view(0.05).panel("amodal").sentence == "This model has no amodal layer."


@pytest.mark.parametrize(
    ("pixel", "position"),
    [
        ((120, 120), 0),  # its visible half
        ((250, 250), 2),  # the small one, which is drawn on top
        ((400, 400), 1),  # a visible mask comes before the hidden part of 0
        ((400, 150), 0),  # the hidden part alone
        ((5, 5), None),
        ((899.9, 599.9), None),
    ],
)
def test_which_object_is_clicked(pixel, position):
    assert analysis().view(0.05).position_at(*pixel) == position


def test_a_click_into_a_box_without_a_mask():
    assert analysis(amodal=False).view(0.05).position_at(400, 150) == 0
    assert analysis().view(0.5).position_at(250, 250) == 0  # number 2 is below the threshold


def test_heat_maps_of_one_object_keep_its_number_and_colour():
    view = analysis().view(0.05)
    picture = view.heat_maps(1).picture
    (expected,) = draw_heat_maps(view.analysis.image, view.detections, cell=180, positions=[1])
    assert np.array_equal(picture, expected)
    (alone,) = draw_heat_maps(view.analysis.image, view.detections[[1]], cell=180)
    assert picture.shape == alone.shape and not np.array_equal(picture, alone)
    assert (picture == instance_color(1)).all(axis=2).any() and not (picture == instance_color(0)).all(axis=2).any()
    assert view.heat_maps(7).picture is None  # it fell below the threshold


def test_the_order_graph():
    """A node for each object that occludes or is occluded, in front at the top; names are escaped."""
    root = ElementTree.fromstring(analysis().view(0.05).order_graph(selected=0))
    nodes = root.findall(f"{SVG}rect")
    assert [node.get("fill") for node in nodes] == ["#{:02x}{:02x}{:02x}".format(*instance_color(i)) for i in (0, 1)]
    assert float(nodes[1].get("y")) < float(nodes[0].get("y"))
    assert [node.get("stroke") for node in nodes] == ["#000", None]
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles == ["#2 <plate> is in front of #1 cup, confidence 0.90"]
    assert [text.text for text in root.findall(f"{SVG}text")] == [
        *("0 in front", "1", "#1 cup", "#2 <plate>", "1 more without occlusion")
    ]


def test_the_json_names_the_file_without_its_folder():
    model = predictor()
    shown = analyse(model, np.zeros((40, 60, 3), np.uint8), "photo.jpg")
    content = json.loads(shown.view(0.05).to_json())
    assert content["image"] == "photo.jpg" and len(content["detections"]) == len(shown.detections) > 0


def test_what_is_uploaded(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    path = str(tmp_path / "photo.png")
    Image.fromarray(pixels).save(path)
    limits = {"max_bytes": 10_000, "max_pixels": 1500}
    assert np.array_equal(read_upload(path, **limits), pixels)
    with pytest.raises(ValueError, match=r"^photo\.png has 0\.0 MiB; at most 0\.001 MiB are accepted"):
        read_upload(path, max_bytes=1049, max_pixels=1500)
    with pytest.raises(ValueError, match=r"photo\.png") as caught:
        read_upload(path, max_bytes=10_000, max_pixels=1499)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"notes\.txt") as also_caught:
        read_upload(str(tmp_path / "notes.txt"), **limits)
    for error in (caught, also_caught):
        assert str(tmp_path) not in str(error.value)


def test_examples_are_the_same_each_time():
    first, second = example_images(2, size=64), example_images(2, size=64)
    assert [image.shape for image in first] == [(64, 64, 3)] * 2
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(*first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"detector": "BoxPrompted"}, "needs a detector; this model takes boxes"),
        ({"MODEL__MASK_ON": False}, "needs a model with masks"),
    ],
)
def test_models_that_cannot_be_shown(overrides, message):
    cfg = small_config(**overrides)
    with pytest.raises(ValueError, match=message):
        check_model(Predictor.from_config(cfg, build_model(cfg)))
    check_model(predictor())
