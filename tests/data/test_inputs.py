"""Command-line inputs: resolution to files, files that a folder search skips, recognition of videos."""

from __future__ import annotations

import json
import logging
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from bcnet.data import find_images
from bcnet.data.videos import UnreadableVideoError, is_video, open_video


def save(path, size=(40, 30)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(path)
    return str(path)


def test_files_folders_patterns_urls_and_data_sets(tmp_path):
    first, second = save(tmp_path / "folder/a.png"), save(tmp_path / "folder/deeper/b.JPG")
    third = save(tmp_path / "c.png")
    assert find_images([str(tmp_path / "folder")]) == [first, second]
    assert find_images([third, str(tmp_path / "*.png"), str(tmp_path / "**/*.png")]) == [third, first]
    assert find_images(["https://host/a?b=c", third]) == ["https://host/a?b=c", third]
    images = [{"id": 1, "file_name": "folder/a.png", "height": 30, "width": 40}]
    (tmp_path / "a.json").write_text(
        json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]})
    )
    assert find_images([f"coco:{tmp_path}/a.json:{tmp_path}"]) == [first]


def test_files_that_a_folder_search_skips_are_counted(tmp_path, caplog):
    image = save(tmp_path / "a.png")
    for name in ("a.txt", "b.TXT", "walk.mp4", "README"):
        (tmp_path / name).write_text("text")
    caplog.set_level(logging.INFO)
    assert find_images([str(tmp_path)]) == [image]
    assert caplog.messages == [f"{tmp_path}: skipped files of other types: .txt (2), .mp4 (1), no suffix (1)"]
    assert find_images([str(tmp_path)], videos=True) == [image, str(tmp_path / "walk.mp4")]
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"the folder holds \.txt \(2\), \.mp4 \(1\), no suffix \(1\)"):
        find_images([str(tmp_path)])


@pytest.mark.parametrize("name", ["missing.jpg", "*.jpg", "MODEL.DEVICE"])
def test_inputs_without_images_are_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"no images found for the input"):
        find_images([str(tmp_path / name)])


def write_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for value in (0, 100, 200):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    return path


def test_videos_are_recognised_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    video = write_video(tmp_path / "walk.avi").rename(tmp_path / "walk.dat")
    assert is_video(str(video))
    assert is_video("webcam:2") and not is_video("https://host/walk.mp4")
    Image.new("RGB", (8, 8)).save(tmp_path / "still.mp4", format="PNG")
    (tmp_path / "heic.mp4").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    for name, content in {"text.mp4": b"no video", "empty.mp4": b"", "broken.jpg": b"\xff\xd8\xff"}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("still.mp4", "heic.mp4", "text.mp4", "empty.mp4", "broken.jpg", "absent.mp4"):
        assert not is_video(str(tmp_path / name)), name


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animated_images_are_videos(tmp_path, format):
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    frames = [Image.new("RGB", (16, 16), color) for color in colors]
    path = str(tmp_path / "animation")
    frames[0].save(path, format=format, save_all=True, append_images=frames[1:], duration=200)
    assert is_video(path)
    with open_video(path) as video:
        assert (video.rate, video.count) == (5, 3)
        for frame, color in zip(video.frames, colors, strict=True):
            assert frame.shape == (16, 16, 3) and np.abs(frame.astype(int) - color).max() <= 4
    frames[0].save(path, format=format)
    assert not is_video(path)


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_an_animation_of_unequal_durations_takes_as_long(tmp_path, format):
    frames = [Image.new("RGB", (16, 16), (value, 0, 0)) for value in (0, 100, 200)]
    path = str(tmp_path / "animation")
    frames[0].save(path, format=format, save_all=True, append_images=frames[1:], duration=[100, 600, 50])
    with open_video(path) as video:
        assert video.rate == pytest.approx(3 / 0.75) and len(list(video.frames)) == 3


def test_pages_of_a_tiff_are_not_a_video(tmp_path):
    pages = [Image.new("L", (8, 8), value) for value in (1, 2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert not is_video(str(tmp_path / "a.tif"))


def test_an_animation_that_is_truncated_ends_with_a_warning(tmp_path, caplog):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(4)]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    path.write_bytes(path.read_bytes()[:-3500])
    with open_video(str(path)) as video:
        assert 0 < len(list(video.frames)) < 4
    assert "of 4 frames" in caplog.text


def test_sources_that_cannot_be_opened_are_named():
    for name in ("absent.mp4", "webcam:97"):
        with pytest.raises(UnreadableVideoError, match=name), open_video(name):
            pass
