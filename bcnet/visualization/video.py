"""Drawing of video files, animations and webcams: instances tracked for their colours, frames written as an mp4.

Letters: D detections, T tracks.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import numpy as np
import torch
from torchvision.ops import box_iou
from tqdm import tqdm

from bcnet.data.videos import UnreadableVideoError, open_video
from bcnet.structures import Detections
from bcnet.visualization.layers import draw_layers
from bcnet.visualization.overlay import draw_detections
from bcnet.visualization.video_writer import VideoWriter

PANEL_SIDES = (480, 640)  # bounds of a panel's longer side in a video of several, pixels


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
        assigned: dict[int, int] = {}  # number by position
        free = set(range(len(self._numbers)))
        for flat in overlaps.flatten().argsort(descending=True, stable=True).tolist():
            index, track = divmod(flat, len(self._numbers))
            if overlaps[index, track] < self.iou_threshold:
                break
            if index not in assigned and track in free:
                assigned[index] = self._numbers[track]
                free.discard(track)
        for index in range(len(boxes)):
            if index not in assigned:
                assigned[index], self._next = self._next, self._next + 1
        numbers = [assigned[index] for index in range(len(boxes))]
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
    """Draws the frames of a video, animation or webcam into an mp4 (`VideoWriter`). Ctrl-C ends it early; the frames
    drawn by then are kept.

    Args:
        predict: from uint8 [H, W, 3] RGB to the frame's detections.
        source: as `bcnet.data.videos.open_video` takes it.
        output_file: an mp4; its folder is made when missing.
        score_threshold: lowest score that is drawn.
        layers: both layers and the depth order beside the detections (`draw_layers`); otherwise the detections alone.
        long_side: pixels of a panel's longer side; None keeps the frame's, with layers within 480..640, so that labels
            are legible and four panels fit a screen.
        max_frames: maximum number of frames; None draws all, of a webcam until Ctrl-C.
        progress: show a progress bar.

    Returns:
        Number of frames drawn.

    Raises:
        UnreadableVideoError: the source cannot be opened or has no frame; names it.
        OSError: the mp4 cannot be written.
    """
    drawn, tracker = 0, InstanceTracker()
    draw = draw_layers if layers else draw_detections
    with open_video(source) as video, VideoWriter(output_file, video.rate) as writer:
        limits = [count for count in (video.count, max_frames) if count is not None]
        bar = tqdm(total=min(limits, default=None), desc=source, unit="frame", disable=not progress, leave=False)
        try:
            with bar:
                for image in itertools.islice(video.frames, max_frames):
                    detections = predict(image)
                    detections = detections[detections.scores >= score_threshold]
                    side = _panel_side(image) if long_side is None and layers else long_side
                    identities = tracker.update(detections)
                    writer.write(draw(image, detections, long_side=side, identities=identities))
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
