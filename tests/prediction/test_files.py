"""Predictions of image files: written as they come, whatever happens to single images or to the process."""

from __future__ import annotations

import json
import os
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from bcnet.prediction.files import predict_files
from bcnet.side_file import SideFile
from bcnet.structures import Detections


class Model:
    """Finds one object in every image, with the image's width as its score in percent; fails where it is told to."""

    num_classes = 2
    class_names = ("cup", "plate")
    max_image_pixels = 0

    def __init__(self, failing=(), error=None):
        self.failing = failing
        self.error = error or RuntimeError("no memory")
        self.seen = []

    def predict(self, images, format, *, score_threshold, batch_size, **options):
        assert format == "RGB"
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"the score threshold must lie in 0..1, got {score_threshold}")
        widths = [image.shape[1] for image in images]
        self.seen.append(widths)
        if set(widths) & set(self.failing):
            raise self.error
        return [self.detections(image.shape[:2]) for image in images]

    def detections(self, size):
        box = torch.tensor([[0.0, 0.0, size[1], size[0] / 2]])
        scores = torch.tensor([size[1] / 100])
        maps = {"occludee_mask": torch.ones(1, 28, 28)}
        return Detections(size, box, scores, torch.tensor([1]), maps, class_names=self.class_names)


@pytest.fixture
def files(tmp_path):
    """Twelve images, 21 to 32 pixels wide."""
    for width in range(21, 33):
        Image.new("RGB", (width, 20)).save(tmp_path / f"{width}.png")
    return [str(tmp_path / f"{width}.png") for width in range(21, 33)]


def predict(model, files, output, **options):
    return predict_files(model, files, output, batch_size=1, progress=False, **options)


def widths(path) -> list[int]:
    """Of the images of a result, and the scores say that the annotations belong to them."""
    coco = COCO(str(path))
    images = coco.loadImgs(coco.getImgIds())
    for image in images:
        (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert annotation["score"] == pytest.approx(image["width"] / 100)
        assert coco.annToMask(annotation).shape == (20, image["width"])
    return [image["width"] for image in images]


def test_a_coco_json_with_ids_from_one(files, tmp_path):
    summary = predict(Model(), files, tmp_path / "out" / "a.json")
    assert (summary.images, summary.instances, summary.failures) == (12, 12, {})
    assert str(summary) == "12 instances in 12 images"
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    assert [image["id"] for image in content["images"]] == list(range(1, 13))
    assert [annotation["id"] for annotation in content["annotations"]] == list(range(1, 13))
    assert content["annotations"][0]["area"] == 21 * 10
    assert content["categories"] == [{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}]
    assert widths(tmp_path / "out" / "a.json") == list(range(21, 33))
    assert os.listdir(tmp_path / "out") == ["a.json"]  # no partial results stay
    assert predict(Model(), [], tmp_path / "none.json").images == 0
    assert json.loads((tmp_path / "none.json").read_text())["images"] == []


class AmodalModel(Model):
    """The visible half of every object is its left one."""

    def detections(self, size):
        found = super().detections(size)
        visible = found.maps["occludee_mask"].clone()
        visible[:, :, 14:] = 0
        return found.with_maps(occludee_mask=visible, occludee_amodal=found.maps["occludee_mask"])


def test_amodal_masks_and_hidden_shares_are_written(files, tmp_path):
    predict(AmodalModel(), files[1:2], tmp_path / "a.json")
    (annotation,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert annotation["occluded_fraction"] == 0.5
    assert coco_mask.area(annotation["amodal_segmentation"]) == 22 * 10
    assert annotation["area"] == coco_mask.area(annotation["segmentation"]) == 11 * 10


def test_an_image_that_fails_is_left_out_alone(files, tmp_path, caplog):
    (tmp_path / "23.png").write_text("no image")
    model = Model(failing=(22, 30))
    summary = predict(model, files, tmp_path / "a.json")
    assert widths(tmp_path / "a.json") == [21, 24, 25, 26, 27, 28, 29, 31, 32]
    assert list(summary.failures) == [files[1], files[2], files[9]]
    assert summary.failures[files[1]] == f"{files[1]}: RuntimeError: no memory"
    assert "cannot read the image" in summary.failures[files[2]]
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 3
    assert str(summary) == "9 instances in 9 images, 3 images failed"
    # Four images are read ahead; those of a chunk that fails are tried again one by one.
    assert model.seen[:5] == [[], [21, 22, 24], [21], [22], [24]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space")])
def test_an_interruption_keeps_the_images_so_far_and_can_be_resumed(files, tmp_path, error):
    output = tmp_path / "a.json"
    (tmp_path / "22.png").write_text("no image")
    if error is KeyboardInterrupt:
        model = Model(failing=(29,), error=KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            predict(model, files, output)
    else:
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        (pictures / "29_detections.jpg").mkdir()  # cannot be written
        with pytest.raises(OSError, match=r"29_detections\.jpg"):
            predict(Model(), files, output, pictures=pictures)
    assert widths(output) == [21, 23, 24, 25, 26, 27, 28]
    model = Model()
    summary = predict(model, files, output, resume=True)
    assert model.seen == [[], [29, 30, 31, 32]]
    assert (summary.images, list(summary.failures)) == (11, [files[1]])
    assert widths(output) == [21, *range(23, 33)]
    assert not (tmp_path / "a.json.partial").exists()


def test_results_are_on_the_disk_before_the_end(files, tmp_path):
    """What a killed process leaves: the lines of all finished images."""
    partial = tmp_path / "a.json.partial"
    counts = []

    class Watching(Model):
        def predict(self, images, format, **options):
            counts.append(len(partial.read_text().splitlines()) - 1 if partial.exists() else None)
            return super().predict(images, format, **options)

    predict(Watching(), files, tmp_path / "a.json")
    assert counts == [None, 0, 4, 8]


def test_partial_results_are_of_one_job(files, tmp_path):
    output = str(tmp_path / "a.json")
    with pytest.raises(KeyboardInterrupt):
        predict(Model(failing=(29,), error=KeyboardInterrupt()), files, output)
    for changes in ({"score_threshold": 0.1}, {"files": files[1:]}):
        with pytest.raises(ValueError, match=r"a\.json\.partial holds results of other images or options"):
            predict(Model(), **{"files": files, "output": output, "resume": True, **changes})
    model = Model()
    predict(model, files, output)  # starts again
    assert model.seen[1] == [21, 22, 23, 24]
    with (
        closing(SideFile(f"{output}.partial", {}, restart=True)),
        pytest.raises(BlockingIOError, match=r"a\.json\.partial is in use"),
    ):
        predict(Model(), files, output)


def test_thresholds_are_refused_before_anything_is_written(files, tmp_path):
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1, got 2"):
        predict(Model(), files, tmp_path / "out" / "a.json", score_threshold=2)
    assert not (tmp_path / "out").exists()


def test_nothing_done_leaves_an_earlier_result(files, tmp_path):
    predict(Model(), files[:1], tmp_path / "a.json")
    with pytest.raises(KeyboardInterrupt):
        predict(Model(failing=(21,), error=KeyboardInterrupt()), files, tmp_path / "a.json")
    assert widths(tmp_path / "a.json") == [21]


def write_gif(path, positions):
    """A white square on black, at other columns in each frame."""
    frames = []
    for x in positions:
        frame = Image.new("RGB", (40, 20))
        frame.paste((255, 255, 255), (x, 4, x + 12, 16))
        frames.append(frame)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return str(path)


class SquareModel(Model):
    """Finds the white square of each frame."""

    def predict(self, images, format, **options):
        self.seen.append(len(images))
        return [self.square(image) for image in images]

    def square(self, image):
        columns = np.flatnonzero(image[10, :, 0] > 128)
        boxes = [[columns[0], 4, columns[-1] + 1, 16]] if len(columns) else []
        count = len(boxes)
        return Detections(
            image.shape[:2],
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.full((count,), 0.9),
            torch.zeros(count, dtype=torch.int64),
            {"occludee_mask": torch.ones(count, 28, 28)},
            class_names=self.class_names,
        )


def test_frames_of_videos_are_images_with_tracks(files, tmp_path):
    walk = write_gif(tmp_path / "walk.gif", (2, 5, 8, 28))
    model = SquareModel()
    summary = predict_files(
        model, [walk, files[0]], tmp_path / "a.json", pictures=tmp_path / "drawn", batch_size=3, progress=False
    )
    assert str(summary) == "4 instances in 5 images (1 video among them)"
    assert model.seen == [0, 3, 1, 1]  # nothing; the frames in batches; the image
    content = json.loads((tmp_path / "a.json").read_text())
    (video,) = content["videos"]
    assert video == {"id": 1, "file_name": walk, "height": 20, "width": 40, "frame_rate": 10.0, "frames": 4}
    frames, image = content["images"][:4], content["images"][4]
    assert [(frame["file_name"], frame["video_id"], frame["frame_index"]) for frame in frames] == [
        (f"{walk}#{index}", 1, index) for index in range(4)
    ]
    assert image["file_name"] == files[0] and "video_id" not in image
    tracks = [annotation["track_id"] for annotation in content["annotations"]]
    assert tracks == [0, 0, 0, 1]  # the last one is too far away to be the same
    assert [annotation["image_id"] for annotation in content["annotations"]] == [1, 2, 3, 4]
    assert sorted(os.listdir(tmp_path / "drawn")) == ["21_detections.jpg", "walk_detections.mp4"]
    COCO(str(tmp_path / "a.json"))


def test_what_is_hidden_in_a_frame_stands_beside_it(files, tmp_path):
    walk = write_gif(tmp_path / "walk.gif", (2, 4, 6, 8))
    model = SquareModel()
    wall = [0.0, 0.0, 30.0, 20.0]

    def with_wall(images, format, **options):
        """A wall in each frame, and the square but for the last one."""
        found = [model.square(image) for image in images]
        for index, one in enumerate(found):
            model.seen.append(1)
            square = one.boxes.tolist() if len(model.seen) < 4 else []
            count = 1 + len(square)
            found[index] = Detections(
                one.image_size,
                torch.tensor([wall, *square]),
                torch.full((count,), 0.9),
                torch.zeros(count, dtype=torch.int64),
                {"occludee_mask": torch.ones(count, 28, 28)},
            )
        return found

    model.predict = with_wall
    predict_files(model, [walk], tmp_path / "a.json", pictures=tmp_path / "drawn", progress=False)
    images = json.loads((tmp_path / "a.json").read_text())["images"]
    assert [("hidden_tracks" in image) for image in images] == [False, False, False, True]
    (hidden,) = images[3]["hidden_tracks"]
    assert (hidden["track_id"], hidden["behind"], hidden["category_id"], hidden["frames"]) == (1, 0, 1, 1)
    assert hidden["bbox"] == pytest.approx([8, 4, 12, 12], abs=1)


def test_a_video_that_fails_is_left_out_and_webcams_are_refused(files, tmp_path):
    walk = write_gif(tmp_path / "walk.gif", (2, 5))
    model = Model(failing=(40,))
    summary = predict_files(model, [walk, files[0]], tmp_path / "a.json", progress=False)
    assert (summary.images, summary.videos, list(summary.failures)) == (1, 0, [walk])
    with pytest.raises(ValueError, match=r"'webcam:1' has no end.*bcnet draw"):
        predict_files(model, ["webcam:1"], tmp_path / "b.json", progress=False)
    assert not (tmp_path / "b.json").exists()
