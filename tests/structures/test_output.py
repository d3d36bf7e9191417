"""Detections in words, pictures, JSON, tables and polygons."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageShow
from pycocotools import mask as coco_mask

import bcnet
from bcnet.structures import Detections, SourceImage
from bcnet.visualization import draw_detections

RED = np.zeros((40, 60, 3), np.uint8)
RED[:, :, 0] = 200
RED[:5, :5] = 255


class Fixed:
    """Reads one array; a class, so that it can be pickled."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __call__(self):
        return self.pixels


def detections(count=3, *, relations=True, amodal=False, path="a/photo.jpg", **changes):
    boxes = torch.tensor([[2.0, 4, 22, 24], [10.0, 4, 30, 24], [40.0, 10, 50, 30]])[:count]
    maps = {"occludee_mask": torch.ones(count, 4, 4)}
    if amodal:
        maps["occludee_amodal"] = maps["occludee_mask"].clone()
        maps["occludee_mask"][1:2, :, :1] = 0
    occluded_by = torch.zeros(3, 3)
    occluded_by[1, 0] = 0.8
    fields = {
        "image_size": (40, 60),
        "boxes": boxes,
        "scores": torch.tensor([0.98, 0.75, 0.5])[:count],
        "classes": torch.tensor([1, 0, 1])[:count],
        "maps": maps,
        "occluded_by": occluded_by[:count, :count] if relations else None,
        "class_names": ("sofa", "person"),
        "source": SourceImage(Fixed(RED), path),
    }
    return Detections(**{**fields, **changes})


def test_short_representation():
    shown = "<Detections: 3 instances (person 98%, sofa 75%, person 50%), 1 occlusion, image 60 x 40>"
    assert repr(detections()) == shown
    four = replace(detections(relations=False)[[0, 1, 2, 0]], class_names=())
    assert repr(four) == "<Detections: 4 instances (class 1 98%, class 1 98%, class 0 75%, ...), image 60 x 40>"
    assert repr(detections(0)) == "<Detections: no instance, image 60 x 40>"
    assert len(repr(detections(2))) < 120


def test_summary_in_words():
    assert detections(amodal=True).summary().splitlines() == [
        "3 instances in a/photo.jpg of 60 x 40 pixels: 2 x person, 1 x sofa",
        "#1 person 98% is in front of #2 sofa 75% (confidence 0.80)",
        "#2 sofa 75%: 25% hidden",
    ]
    assert detections(0, path=None).summary() == "no instance in an image of 60 x 40 pixels"
    assert detections(relations=False).summary().count("\n") == 0
    assert "no instance is in front of another" in detections()[1:].summary()


def test_json_has_everything_with_its_image():
    content = json.loads(detections(amodal=True).to_json())
    assert (content["image"], content["width"], content["height"]) == ("a/photo.jpg", 60, 40)
    first, second, _ = content["detections"]
    assert (first["number"], first["class"], first["name"], first["score"]) == (0, 1, "person", 0.98)
    assert first["box"] == [2, 4, 22, 24] and first["area"] == 388 and first["occluded_by"] == []
    assert second["occluded_by"] == [[0, 0.8]] and second["depth"] == 1 and second["occluded_fraction"] == 0.25
    (outline,) = first["polygons"]
    assert [min(x for x, _ in outline), max(y for _, y in outline)] == pytest.approx([2, 24], abs=0.5)
    assert json.loads(detections(0).to_json())["detections"] == []
    plain = json.loads(detections(relations=False, maps={}).to_json())["detections"][0]
    assert plain.keys() == {"number", "class", "name", "score", "box"}


def test_polygons_are_the_mask_again_with_holes_and_parts():
    ring = torch.ones(1, 20, 20)
    ring[0, 6:12, 6:12] = 0  # a hole
    ring[0, :, 15:17] = 0  # in two parts
    found = detections(1, maps={"occludee_mask": ring})
    (polygons,) = found.polygons
    assert len(polygons) == 2 and all(p.dtype == np.float32 and p.shape[1] == 2 for p in polygons)
    again = coco_mask.decode(
        coco_mask.merge(coco_mask.frPyObjects([p.ravel().astype(float) for p in polygons], 40, 60))
    )
    assert np.array_equal(again.astype(bool), found.masks[0].numpy())
    assert detections(1, maps={"occludee_mask": torch.zeros(1, 4, 4)}).polygons == [[]]
    with pytest.raises(ValueError, match="have no occludee_mask"):
        _ = detections(maps={}).polygons


def test_dataframe_has_the_same_columns_without_detections():
    pandas = pytest.importorskip("pandas")
    table = detections(amodal=True).to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == [
        *("number", "class", "name", "score", "x0", "y0", "x1", "y1", "area"),
        *("occluded_fraction", "occluded_by", "depth"),
    ]
    assert table["name"].tolist() == ["person", "sofa", "person"] and table["depth"].tolist() == [0, 1, 0]
    assert table["area"].tolist() == detections(amodal=True).masks.sum(dim=(1, 2)).tolist()
    empty = detections(0, amodal=True).to_dataframe()
    assert list(empty.columns) == list(table.columns) and len(empty) == 0
    assert len(pandas.concat([table, empty])) == 3


def test_coco_results_without_arguments():
    results = detections(relations=False).to_coco()
    assert [(entry["image_id"], entry["category_id"]) for entry in results] == [(1, 2), (1, 1), (1, 2)]


def test_tracks_go_wherever_results_go():
    found = detections(relations=False, track_ids=torch.tensor([7, 3, 9]))
    assert found[[2, 0]].track_ids.tolist() == [9, 7] and found != replace(found, track_ids=None)
    assert [entry["track_id"] for entry in found.to_coco()] == [7, 3, 9]
    assert [entry["track_id"] for entry in json.loads(found.to_json())["detections"]] == [7, 3, 9]
    with pytest.raises(ValueError, match=r"track_ids must be \[3\]"):
        detections(track_ids=torch.tensor([1]))


def test_the_image_and_its_path_stay_with_the_results():
    found = detections()
    assert found.path == "a/photo.jpg" and found.image is RED
    assert found[:1].path == found.to("cpu").path == "a/photo.jpg"
    assert found.rescaled((40, 60)).path == "a/photo.jpg"
    larger = found.rescaled((80, 120))
    assert larger.path is None
    with pytest.raises(ValueError, match=r"do not know their image.*plot\(image="):
        larger.plot()
    assert found == replace(found, source=None)
    assert pickle.loads(pickle.dumps(found)).path == found.path


def test_plot_draws_into_the_image():
    picture = detections().plot(labels=False)
    assert picture.size == (640, 427)  # enlarged, for legible labels
    pixels = np.asarray(detections().plot(labels=False, boxes=False, long_side=60))
    assert pixels.shape == (40, 60, 3) and tuple(pixels[35, 55]) == (200, 0, 0)  # still red
    assert tuple(pixels[10, 6]) != (200, 0, 0)
    assert detections().plot(layers=True).height > picture.height
    other = detections().plot(image=np.ascontiguousarray(RED[:, :, ::-1]), long_side=60, labels=False, boxes=False)
    assert tuple(np.asarray(other)[35, 55]) == (200, 0, 0)  # arrays are BGR, as in predict
    as_rgb = detections().plot(image=RED, format="RGB", long_side=60, labels=False, boxes=False)
    assert np.array_equal(np.asarray(as_rgb), np.asarray(other))
    with pytest.raises(ValueError, match=r"use Detections\.rescaled"):
        detections().plot(image=RED[:20])


def test_drawing_rejects_the_image_in_the_other_channel_order():
    swapped = np.ascontiguousarray(RED[:, :, ::-1])
    with pytest.raises(ValueError, match="the image is in BGR order"):
        draw_detections(swapped, detections())
    draw_detections(RED, detections())
    grey = np.full_like(RED, 90)
    draw_detections(grey, detections(source=SourceImage(Fixed(grey))))
    draw_detections(swapped, detections(source=None))
    draw_detections(RED[:, :, [1, 0, 2]].copy(), detections())  # another image: the caller's choice

    def gone():
        raise FileNotFoundError("photo.jpg")

    draw_detections(swapped, detections(source=SourceImage(gone)))


@pytest.mark.parametrize("name", ["found.png", "found.JPG", "new/found.webp"])
def test_pictures_are_saved_by_their_suffix(tmp_path, name):
    detections().save(tmp_path / name, labels=False)
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (640, 427) and picture.convert("RGB").getpixel((630, 420))[0] > 150
    assert not list(tmp_path.rglob("*.tmp"))


def test_saving_json_and_unknown_suffixes(tmp_path):
    detections().save(tmp_path / "found.json")
    assert len(json.loads((tmp_path / "found.json").read_text())["detections"]) == 3
    with pytest.raises(ValueError, match=r"\.jpg, \.png and the like, results as \.json; got .*found\.pict"):
        detections().save(tmp_path / "found.pict")


def test_notebooks_show_the_picture():
    with Image.open(io.BytesIO(detections()._repr_jpeg_())) as picture:
        assert picture.size == (640, 427)
    assert detections(source=None)._repr_jpeg_() is None
    large = replace(detections(), source=SourceImage(Fixed(np.zeros((40, 60, 3), np.uint8))))
    assert large._repr_jpeg_() is not None


def test_show_says_where_there_is_no_viewer(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    shown = []
    monkeypatch.setattr(ImageShow, "show", lambda picture, title: shown.append(picture.size) or True)
    detections().show(long_side=900)
    assert shown == [(900, 600)]
    monkeypatch.setattr(ImageShow, "show", lambda picture, title: False)
    with pytest.raises(OSError, match="no image viewer here"):
        detections().show()


def test_the_packages_names_are_listed_and_importable():
    assert {"load", "Detections", "Predictor", "draw_layers", "load_config"} <= set(dir(bcnet))
    assert set(bcnet.__all__) == {name for name in dir(bcnet) if name == "__version__" or name[:2] != "__"}
    assert len(str(inspect.signature(bcnet.Detections))) < 900
    for name in bcnet.__all__:
        assert getattr(bcnet, name)
    assert "bcnet.load(" in bcnet.__doc__


def test_one_of_several_detections_says_nothing_of_occlusions():
    """The others may cover it: their relations to it are not among its own."""
    assert repr(detections()[2]) == "<Detections: 1 instance (person 50%), image 60 x 40>"
    assert "(person 98%, sofa 75%), 1 occlusion, image" in repr(detections()[[0, 1]])
    assert "(person 98%, person 50%), no occlusion among them, image" in repr(detections()[[0, 2]])


@pytest.mark.parametrize(
    ("name", "meant"),
    [("xyxy", "boxes"), ("mask", "masks"), ("conf", "scores"), ("mask_rle", "mask_rles"), ("tracker_id", "track_ids")],
)
def test_names_of_other_packages_are_translated(name, meant):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; did you mean {meant}\\?"):
        getattr(detections(), name)
    assert not hasattr(detections(), "quite_another_thing")


def test_no_viewer_is_opened_without_a_screen(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(ImageShow, "show", lambda picture, title: pytest.fail("a viewer was opened"))
    with pytest.raises(OSError, match="no image viewer here"):
        detections().show()
