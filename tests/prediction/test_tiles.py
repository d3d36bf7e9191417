"""Prediction on tiles: windows, objects that several tiles show, order, large files."""

from __future__ import annotations

import itertools
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bcnet.data.image_windows import ImageWindows
from bcnet.data.images import UnreadableImageError
from bcnet.ops.paste import Window
from bcnet.prediction.files import predict_files
from bcnet.prediction.predictor import Predictor
from bcnet.prediction.tiles import merge_tiles, tile_windows
from bcnet.structures import Detections

SIDE = 28


def maps_of(masks, boxes):
    """The masks at the centres of the boxes' cells: float [D, 28, 28]."""
    maps = torch.zeros(len(masks), SIDE, SIDE)
    steps = (np.arange(SIDE) + 0.5) / SIDE
    for roi_map, mask, (x0, y0, x1, y1) in zip(maps, masks, boxes, strict=True):
        xs, ys = (x0 + steps * (x1 - x0)).astype(int), (y0 + steps * (y1 - y0)).astype(int)
        roi_map[:] = torch.from_numpy(mask[ys[:, None], xs[None]].astype(np.float32))
    return maps


def detect(image, *, masks=True, with_occluder=False):
    """Each colour of the red channel is an object, of the class in the green one; what is blue lies in front."""
    found, labels, front = [], [], []
    for value in np.unique(image[:, :, 0]):
        mask = image[:, :, 0] == value
        if value and mask.any():
            found.append(mask)
            labels.append(int(image[:, :, 1][mask][0]))
            front.append(bool(image[:, :, 2][mask][0]))
    boxes = []
    for mask in found:
        rows, columns = np.nonzero(mask)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    maps = {"occludee_mask": maps_of(found, boxes)} if masks else {}
    if masks and with_occluder:
        other = [np.any([m for m, f in zip(found, front, strict=True) if f], axis=0) & ~mask for mask in found]
        maps["occluder_mask"] = maps_of(other, boxes)
    return Detections(
        image.shape[:2],
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor([0.5 + mask.mean() / 2 for mask in found]),
        torch.tensor(labels, dtype=torch.int64),
        maps,
    )


def tiled(image, tile, overlap=0.2, **options):
    windows = tile_windows(image.shape[:2], tile, overlap)
    return merge_tiles([(w, detect(image[w.y0 : w.y1, w.x0 : w.x1], **options)) for w in windows], image.shape[:2])


def canvas(height, width, *objects):
    """An image with objects (value, label, front, mask), later ones on top."""
    image = np.zeros((height, width, 3), np.uint8)
    for value, label, front, mask in objects:
        image[mask] = (value, label, 255 * front)
    return image


def disk(height, width, x, y, radius):
    rows, columns = np.ogrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def iou(mask, other):
    return (mask & other).sum() / (mask | other).sum()


def test_tiles_cover_the_image_and_share_their_borders():
    assert tile_windows((50, 40), 64, 0.2) == [Window(0, 0, 40, 50)]
    assert tile_windows((64, 150), 64, 0.25) == [
        Window(0, 0, 64, 64),
        Window(43, 0, 107, 64),
        Window(86, 0, 150, 64),
    ]
    windows = tile_windows((1000, 777), 100, 0.2)
    covered = np.zeros((1000, 777), bool)
    for x0, y0, x1, y1 in windows:
        assert (x1 - x0, y1 - y0) == (100, 100)
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    starts = sorted({window.x0 for window in windows})
    assert max(b - a for a, b in itertools.pairwise(starts)) <= 80


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0.2), (64, 1.0), (64, -0.1)])
def test_impossible_tiles_are_refused(tile, overlap):
    with pytest.raises(ValueError, match=f"got {tile} and {overlap}"):
        tile_windows((100, 100), tile, overlap)


def test_an_object_of_four_tiles_is_one():
    whole = disk(180, 180, 90, 88, 60)
    image = canvas(180, 180, (50, 1, False, whole))
    assert len(tile_windows((180, 180), 100, 0.2)) == 4
    found = tiled(image, 100)
    assert len(found) == 1 and found.classes.tolist() == [1]
    rows, columns = np.nonzero(whole)
    assert found.boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    assert iou(found.masks[0].numpy(), whole) > 0.97
    seam = found.masks[0].numpy()[80:100, 80:100]  # the part of all four
    assert seam.all()


def test_neighbours_of_a_class_stay_apart_and_whole_objects_are_found_once():
    left, right = disk(100, 300, 120, 50, 28), disk(100, 300, 180, 50, 28)
    small = disk(100, 300, 90, 50, 4)  # in two tiles, whole in both
    image = canvas(100, 300, (50, 0, False, left), (60, 0, False, right), (70, 1, False, small))
    found = tiled(image, 100, 0.3)
    assert len(found) == 3
    for mask in (left & ~small, right, small):
        assert max(iou(m.numpy(), mask) for m in found.masks) > 0.85


def test_the_order_is_that_of_the_whole_objects():
    below, above = disk(180, 180, 90, 88, 70), disk(180, 180, 90, 88, 40)
    image = canvas(180, 180, (50, 1, False, below), (60, 0, True, above))
    found = tiled(image, 100, with_occluder=True)
    assert len(found) == 2
    lower, upper = (found.classes.tolist().index(label) for label in (1, 0))
    depth = found.occlusion.order.depth
    assert (depth[upper], depth[lower]) == (0, 1)
    assert found.occluded_by[lower, upper] > 0.9 and found.occluded_by[upper, lower] < 0.1


def test_boxes_alone_are_merged_too():
    bar = np.zeros((60, 400), bool)
    bar[20:40, 30:370] = True
    found = tiled(canvas(60, 400, (50, 2, False, bar)), 100, masks=False)
    assert found.boxes.tolist() == [[30, 20, 370, 40]] and not found.maps


def test_an_image_of_one_tile_and_one_without_objects():
    mask = disk(60, 60, 30, 30, 20)
    image = canvas(60, 60, (50, 1, False, mask))
    alone, found = detect(image), tiled(image, 100)
    assert torch.equal(found.boxes, alone.boxes) and torch.equal(found.scores, alone.scores)
    assert torch.equal(found.occludee_mask, alone.occludee_mask)
    empty = tiled(np.zeros((150, 150, 3), np.uint8), 100)
    assert len(empty) == 0 and empty.image_size == (150, 150)


class TileModel:
    """Detects by `detect`."""

    num_classes = 3
    class_names = ("a", "b", "c")
    max_image_pixels = 20_000
    predict_tiled = Predictor.predict_tiled

    def __init__(self):
        self.seen = []

    def predict(self, images, format, *, score_threshold=0.0, **options):
        assert format == "RGB"
        self.seen += [image.shape[:2] for image in images]
        return [detect(image) for image in images]


def test_files_are_predicted_on_tiles(tmp_path):
    whole = disk(180, 180, 90, 88, 60)
    Image.fromarray(canvas(100, 180, (50, 1, False, whole[:100]))).save(tmp_path / "a.png")
    model = TileModel()
    summary = predict_files(
        model, [str(tmp_path / "a.png")], tmp_path / "a.json", pictures=tmp_path / "drawn", tile=100, progress=False
    )
    assert str(summary) == "1 instance in 1 image" and model.seen == [(100, 100)] * 2
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["images"][0]["width"] == 180
    assert content["annotations"][0]["bbox"] == [30, 28, 121, 72]
    assert (tmp_path / "drawn" / "a_detections.jpg").is_file()
    with pytest.raises(ValueError, match="got 0 and"):
        predict_files(model, [str(tmp_path / "a.png")], tmp_path / "b.json", tile=0, progress=False)


@pytest.mark.parametrize("kind", ["tiles", "strips", "deflated", "grey", "deep"])
def test_a_tiff_larger_than_the_limit_is_read_in_windows(tmp_path, kind, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    image = np.random.default_rng(0).integers(0, 255, (150, 210, 3)).astype(np.uint8)
    options = {
        "tiles": {"tile": (64, 48)},
        "strips": {"rowsperstrip": 32},
        "deflated": {"tile": (64, 64), "compression": "zlib", "predictor": True},
        "grey": {"rowsperstrip": 150},
        "deep": {"tile": (32, 32)},
    }[kind]
    pixels = {"grey": image[:, :, 0], "deep": image.astype(np.uint16) * 257}.get(kind, image)
    path = str(tmp_path / "large.tif")
    tifffile.imwrite(path, pixels, photometric="minisblack" if kind == "grey" else "rgb", **options)
    wanted = np.repeat(pixels[:, :, None], 3, axis=2) if kind == "grey" else image
    with ImageWindows(path, max_pixels=1000) as windows:
        assert windows.size == (150, 210) and windows._pixels is None
        for x0, y0, x1, y1 in ((0, 0, 210, 150), (10, 20, 90, 149), (63, 63, 65, 65), (209, 149, 210, 150)):
            window = windows.read(x0, y0, x1, y1)
            assert window.dtype == np.uint8 and np.array_equal(window, wanted[y0:y1, x0:x1])
    with pytest.raises(UnreadableImageError):
        monkeypatch.setitem(sys.modules, "tifffile", None)
        ImageWindows(path, max_pixels=1000)


def test_a_large_tiff_is_predicted_without_reading_it_whole(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    mask = disk(400, 300, 150, 200, 120)
    tifffile.imwrite(tmp_path / "large.tif", canvas(400, 300, (50, 2, False, mask)), tile=(64, 64), photometric="rgb")
    model = TileModel()
    found = model.predict_tiled(str(tmp_path / "large.tif"), tile=128, overlap=0.25)
    assert len(found) == 1 and iou(found.masks[0].numpy(), mask) > 0.96
    assert set(model.seen) == {(128, 128)} and found.path == str(tmp_path / "large.tif")
