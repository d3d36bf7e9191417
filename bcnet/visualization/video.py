"""Drawing of video files, animations and webcams: tracked instances in every frame, written as an mp4.

Letters: D detections, H x W frame.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from types import TracebackType

import numpy as np
from tqdm import tqdm

from bcnet.data.videos import UnreadableVideoError, open_video
from bcnet.structures import Detections
from bcnet.tracking import CONTINUING_SCORE, InstanceTracker
from bcnet.visualization import style
from bcnet.visualization.layers import draw_layers
from bcnet.visualization.overlay import draw_detections
from bcnet.visualization.video_writer import VideoWriter

PANEL_SIDES = (480, 640)  # bounds of a panel's longer side in a video of several, pixels


class DrawnVideo:
    """An mp4 (`VideoWriter`) of frames with their detections; a context manager.

    Args:
        path: of the mp4; its folder is made when missing.
        rate: frames per second.
        layers: sheets with both layers and the depth order (`draw_layers`); otherwise the detections alone.
        long_side: pixels of a panel's longer side; None keeps the frame's, with layers within 480..640, so that labels
            are legible and four panels fit a screen.

    Raises:
        OSError: the file cannot be written; names it.
    """

    def __init__(self, path: str | os.PathLike, rate: float, *, layers: bool, long_side: int | None = None) -> None:
        self.layers = layers
        self.long_side = long_side
        self._writer = VideoWriter(path, rate)
        self._size: tuple[int, int] | None = None

    def add(self, image: np.ndarray, detections: Detections) -> None:
        """Appends a frame, uint8 [H, W, 3] RGB, and its detections."""
        if self.layers:
            side = _panel_side(image) if self.long_side is None else self.long_side
            picture = draw_layers(image, detections, long_side=side, keep_places=True)
        else:
            picture = draw_detections(image, detections, long_side=self.long_side)
        self._size = self._size or (picture.shape[0], picture.shape[1])
        self._writer.write(_fitted(picture, self._size))

    def __enter__(self) -> DrawnVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()


def draw_video(
    predict: Callable[[np.ndarray], Detections],
    source: str,
    output_file: str | os.PathLike,
    *,
    score_threshold: float = 0.5,
    layers: bool = True,
    long_side: int | None = None,
    max_frames: int | None = None,
    progress: bool = True,
) -> int:
    """Draws the frames of a video, animation or webcam into an mp4 (`DrawnVideo`). Ctrl-C ends it early; the frames
    drawn by then are kept.

    Args:
        predict: from uint8 [H, W, 3] RGB to the frame's detections.
        source: as `bcnet.data.videos.open_video` takes it.
        output_file: an mp4; its folder is made when missing.
        score_threshold: lowest score of a detection that begins a track; lower ones, down to `CONTINUING_SCORE`, are
            drawn where they go on with one (`InstanceTracker`).
        layers, long_side: as `DrawnVideo` takes them.
        max_frames: maximum number of frames; None draws all, of a webcam until Ctrl-C.
        progress: show a progress bar.

    Returns:
        Number of frames drawn.

    Raises:
        UnreadableVideoError: the source cannot be opened or has no frame; names it.
        OSError: the mp4 cannot be written.
        ImportError: the package trackers is absent.
    """
    drawn = 0
    with (
        open_video(source) as video,
        DrawnVideo(output_file, video.rate, layers=layers, long_side=long_side) as output,
    ):
        tracker = InstanceTracker(frame_rate=video.rate, new_track_score=score_threshold)
        lowest = min(score_threshold, CONTINUING_SCORE)
        limits = [count for count in (video.count, max_frames) if count is not None]
        bar = tqdm(total=min(limits, default=None), desc=source, unit="frame", disable=not progress, leave=False)
        try:
            with bar:
                for image in itertools.islice(video.frames, max_frames):
                    detections = predict(image)
                    output.add(image, tracker.update(detections[detections.scores >= lowest]))
                    drawn += 1
                    bar.update()
        except KeyboardInterrupt:
            if not drawn:
                raise
    if not drawn:
        raise UnreadableVideoError(f"{source!r} has no frame that can be read")
    return drawn


def _panel_side(image: np.ndarray) -> int:
    low, high = PANEL_SIDES
    return min(max(max(image.shape[:2]), low), high)


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at the size of the first one: cut, or filled up with white. Titles may take another line."""
    height, width = size
    picture = picture[:height, :width]
    missing = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
    return np.pad(picture, missing, constant_values=style.PAPER[0])
