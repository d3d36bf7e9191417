"""Pictures of video files and webcams: every frame drawn, written as one mp4.

Letters: D detections, T tracks.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou
from tqdm import tqdm

from bcnet.structures import Detections
from bcnet.visualization.layers import draw_layers
from bcnet.visualization.overlay import draw_detections

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
PANEL_SIDES = (480, 640)  # bounds of a panel's longer side in a video of several, pixels
DEFAULT_RATE = 25.0  # frames per second, where the source does not say
_WEBCAM = re.compile(r"webcam(?::(\d+))?")


class UnreadableVideoError(ValueError):
    """A video file or camera that gives no frame."""


def is_webcam(name: str) -> bool:
    """True for "webcam", and "webcam:1" and so on."""
    return bool(_WEBCAM.fullmatch(name))


def is_video(name: str) -> bool:
    """True for a video file's name, by its suffix, and for a webcam."""
    return name.lower().endswith(VIDEO_SUFFIXES) or is_webcam(name)


def video_stem(name: str) -> str:
    """The name of a video without folder and suffix, for the files made of it."""
    return os.path.splitext(os.path.basename(name))[0].replace(":", "_")


class InstanceTracker:
    """Numbers that stay with an instance from frame to frame, so that its colour does.

    A detection takes the number of the track of its class with which its box has the largest IoU, best pairs first;
    without one of at least `iou_threshold` it starts a new track. It is for pictures: nothing is predicted, and an
    instance that leaves for longer than `patience` frames comes back with another colour.
    """

    def __init__(self, iou_threshold: float = 0.3, patience: int = 15) -> None:
        self.iou_threshold = iou_threshold
        self.patience = patience
        self._boxes = torch.zeros(0, 4)
        self._classes = torch.zeros(0, dtype=torch.int64)
        self._numbers: list[int] = []
        self._missed: list[int] = []
        self._next = 0

    def update(self, detections: Detections) -> list[int]:
        """The number of each detection of the next frame."""
        boxes, classes = detections.boxes.cpu().float(), detections.classes.cpu()
        overlaps = box_iou(boxes, self._boxes) * (classes[:, None] == self._classes)  # [D, T]
        numbers: list[int | None] = [None] * len(boxes)
        free = set(range(len(self._numbers)))
        for flat in overlaps.flatten().argsort(descending=True, stable=True).tolist():
            index, track = divmod(flat, len(self._numbers))
            if overlaps[index, track] < self.iou_threshold:
                break
            if numbers[index] is None and track in free:
                numbers[index] = self._numbers[track]
                free.discard(track)
        for index, number in enumerate(numbers):
            if number is None:
                numbers[index], self._next = self._next, self._next + 1
        kept = [track for track in sorted(free) if self._missed[track] < self.patience]
        self._missed = [0] * len(boxes) + [self._missed[track] + 1 for track in kept]
        self._numbers = numbers + [self._numbers[track] for track in kept]
        self._boxes = torch.cat([boxes, self._boxes[kept]])
        self._classes = torch.cat([classes, self._classes[kept]])
        return numbers


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
    """Draws the frames of a video or webcam into an mp4. Ctrl-C ends it early; what was drawn by then is kept.

    Args:
        predict: from uint8 [H, W, 3] RGB to the frame's detections.
        source: a video file, or "webcam" or "webcam:N" for the N-th camera of the machine, counted from 0.
        output_file: an mp4; its folder is made when missing.
        score_threshold: lowest score that is drawn.
        layers: both layers and the order beside the detections (`draw_layers`); otherwise the detections alone.
        long_side: pixels of a panel's longer side; None keeps the frame's, with layers within 480..640, so that labels
            are legible and four panels fit a screen.
        max_frames: draw the first so many; None draws all, of a webcam until Ctrl-C.
        progress: show a progress bar.

    Returns:
        Number of frames drawn.

    Raises:
        UnreadableVideoError: the source cannot be opened or has no frame; names it.
        OSError: the mp4 cannot be written.
    """
    camera = _WEBCAM.fullmatch(source)
    capture = cv2.VideoCapture(int(camera[1] or 0) if camera else source)
    writer, drawn, tracker = None, 0, InstanceTracker()
    try:
        if not capture.isOpened():
            raise UnreadableVideoError(f"{source!r} cannot be opened as {'a camera' if camera else 'a video'}")
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        limits = [count for count in (frames, max_frames) if count and count > 0]
        with tqdm(total=min(limits, default=None), desc=source, unit="frame", disable=not progress, leave=False) as bar:
            while max_frames is None or drawn < max_frames:
                read, frame = capture.read()
                if not read:
                    break
                image = np.ascontiguousarray(frame[:, :, ::-1])
                found = predict(image)
                found = found[found.scores >= score_threshold]
                side = long_side
                if side is None and layers:
                    side = min(max(*image.shape[:2], PANEL_SIDES[0]), PANEL_SIDES[1])
                draw = draw_layers if layers else draw_detections
                picture = draw(image, found, long_side=side, identities=tracker.update(found))
                if writer is None:
                    writer = _writer(output_file, picture.shape[:2], capture.get(cv2.CAP_PROP_FPS))
                writer.write(_even(picture)[:, :, ::-1])
                drawn += 1
                bar.update()
    except KeyboardInterrupt:
        if not drawn:
            raise
    finally:
        capture.release()
        if writer is not None:
            writer.release()
    if not drawn:
        raise UnreadableVideoError(f"{source!r} has no frame that can be read")
    return drawn


def _writer(path: str | os.PathLike, size: tuple[int, int], rate: float) -> cv2.VideoWriter:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    rate = rate if math.isfinite(rate) and 0 < rate <= 240 else DEFAULT_RATE
    height, width = (side + side % 2 for side in size)
    writer = cv2.VideoWriter(os.fspath(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
    if not writer.isOpened():
        raise OSError(f"{path} cannot be written as an mp4 of {width} x {height} pixels")
    return writer


def _even(picture: np.ndarray) -> np.ndarray:
    """The picture with even sides, which video codecs want; the last column or row comes twice."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
