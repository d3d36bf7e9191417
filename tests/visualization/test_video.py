"""Videos: read, drawn and written; colours that stay with an instance."""

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from bcnet.data import find_images
from bcnet.data.videos import UnreadableVideoError
from bcnet.structures import Detections
from bcnet.visualization import draw_predictions, draw_video
from bcnet.visualization.video_writer import VideoWriter


def write_video(path, frames=6, size=(48, 64), rate=10):
    """A bright square that moves to the right by 4 pixels a frame; MJPG, which every OpenCV can write."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, size[::-1])
    assert writer.isOpened()
    for frame in range(frames):
        image = np.full((*size, 3), 40, dtype=np.uint8)
        image[10:30, 4 + 4 * frame : 24 + 4 * frame] = (30, 60, 220)  # red in OpenCV's order
        writer.write(image)
    writer.release()
    return str(path)


def found(boxes, image_size, classes=None, scores=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    count = len(boxes)
    return Detections(
        image_size,
        boxes,
        torch.full((count,), 0.9) if scores is None else torch.tensor(scores),
        torch.zeros(count, dtype=torch.int64) if classes is None else torch.tensor(classes),
        {"occludee_mask": torch.ones(count, 28, 28)},
        class_names=("square", "circle"),
    )


def predict(image):
    """The square, found by its colour: the image is RGB."""
    rows, columns = np.nonzero(image[:, :, 0] > 150)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else []
    return found([box] if box else [], image.shape[:2])


def read(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        more, frame = capture.read()
        if not more:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame[:, :, ::-1])


def test_a_video_is_drawn_frame_by_frame(tmp_path):
    source = write_video(tmp_path / "walk.avi")
    target = tmp_path / "out" / "walk.mp4"
    assert draw_video(predict, source, target, layers=False, progress=False) == 6
    drawn, rate = read(target)
    assert rate == pytest.approx(10)
    for number, (before, after) in enumerate(zip(read(source)[0], drawn, strict=True)):
        assert after.shape == before.shape
        square, free = np.s_[14:26, 8 + 4 * number : 20 + 4 * number], np.s_[36:, :]
        assert np.abs(after[square].astype(int) - before[square]).mean() > 10  # tinted
        assert np.abs(after[free].astype(int) - before[free]).mean() < 6
    # The pixel format wants even sides: 63 x 47 becomes 64 x 48.
    draw_video(predict, source, target, layers=False, long_side=63, max_frames=1, progress=False)
    assert read(target)[0][0].shape == (48, 64, 3)


def test_the_colours_stay(tmp_path):
    colors = ((213, 94, 0), (86, 180, 233), (0, 158, 115))
    frame = np.repeat(np.array(colors, np.uint8)[None], 32, axis=1).repeat(48, axis=0)  # bands of 32 pixels
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frame)
        writer.write(cv2.resize(frame, (48, 24), interpolation=cv2.INTER_NEAREST))  # the size of the first
    drawn, _ = read(tmp_path / "a.mp4")
    assert [picture.shape for picture in drawn] == [frame.shape] * 2
    for picture in drawn:
        assert np.abs(picture[24, 16::32].astype(int) - colors).max() <= 3


def test_browsers_play_it(tmp_path):
    draw_video(predict, write_video(tmp_path / "walk.avi"), tmp_path / "walk.mp4", layers=False, progress=False)
    with av.open(str(tmp_path / "walk.mp4")) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.average_rate, stream.frames) == (10, 6)
    content = (tmp_path / "walk.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is all there


def test_an_animation_is_drawn_too(tmp_path):
    frames = [Image.new("RGB", (64, 48), (value, 60, 30)) for value in (220, 40)]
    frames[0].save(tmp_path / "walk.gif", save_all=True, append_images=frames[1:], duration=100)
    gallery = draw_predictions(predict, [str(tmp_path / "walk.gif")], tmp_path / "out", progress=False)
    assert (gallery.frames, gallery.pictures) == (2, [str(tmp_path / "out" / "walk_layers.mp4")])


def test_a_video_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match="out"):
        draw_video(predict, write_video(tmp_path / "walk.avi"), tmp_path / "out" / "walk.mp4", progress=False)


def test_the_layers_are_drawn_beside_it(tmp_path):
    source = write_video(tmp_path / "walk.avi", frames=2)
    assert draw_video(predict, source, tmp_path / "walk.mp4", long_side=128, progress=False) == 2
    frames, _ = read(tmp_path / "walk.mp4")
    assert frames[0].shape[1] > 2 * 128  # detections and occludee layer


def test_the_first_frames_only_and_no_detection_at_all(tmp_path):
    source = write_video(tmp_path / "walk.avi")
    assert draw_video(predict, source, tmp_path / "walk.mp4", max_frames=2, score_threshold=0.95, progress=False) == 2
    assert len(read(tmp_path / "walk.mp4")[0]) == 2


def test_an_interrupted_video_is_kept(tmp_path):
    source = write_video(tmp_path / "walk.avi")
    seen = []

    def interrupted(image):
        seen.append(image)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return predict(image)

    assert draw_video(interrupted, source, tmp_path / "walk.mp4", progress=False) == 3
    assert len(read(tmp_path / "walk.mp4")[0]) == 3


@pytest.mark.parametrize("name", ["broken.mp4", "missing.avi", "webcam:97"])
def test_what_cannot_be_opened_is_named(tmp_path, name):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    source = name if name.startswith("webcam") else str(tmp_path / name)
    with pytest.raises(UnreadableVideoError, match=name):
        draw_video(predict, source, tmp_path / "out.mp4", progress=False)
    assert not (tmp_path / "out.mp4").exists()


def test_images_and_videos_of_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "walk.avi", frames=3)
    cv2.imwrite(str(tmp_path / "in" / "still.png"), np.full((20, 30, 3), 200, dtype=np.uint8))
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    assert find_images([str(tmp_path / "in")]) == [str(tmp_path / "in" / "still.png")]
    files = find_images([str(tmp_path / "in"), "webcam:97"], videos=True)
    assert len(files) == 4
    gallery = draw_predictions(predict, files, tmp_path / "out", progress=False)
    assert (gallery.drawn, gallery.frames, len(gallery.failures)) == (2, 3, 2)
    assert "3 frames of video" in gallery.summary()
    assert (tmp_path / "out/walk_layers.mp4").is_file()
    assert len(read(tmp_path / "out/walk_layers.mp4")[0]) == 3
