"""Drawing of tracks that are hidden in a frame of a video: dashed boxes where they are expected, and their labels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bcnet.structures.hidden_track import HiddenTrack
from bcnet.visualization import style


def draw_hidden_boxes(canvas: np.ndarray, tracks: Sequence[HiddenTrack]) -> None:
    """Draws dashed boxes in the colours of the tracks (in place)."""
    width = max(1, style.line_width(canvas.shape[:2]) // 2)
    dash = 6 * width
    for track in tracks:
        x0, y0, x1, y1 = (round(value) for value in track.box)
        color = style.instance_color(track.track_id)
        for x in range(x0, x1, 2 * dash):
            for y in (y0, y1 - 1):
                cv2.line(canvas, (x, y), (min(x + dash, x1) - 1, y), color, width)
        for y in range(y0, y1, 2 * dash):
            for x in (x0, x1 - 1):
                cv2.line(canvas, (x, y), (x, min(y + dash, y1) - 1), color, width)


def hidden_labels(tracks: Sequence[HiddenTrack]) -> list[str]:
    """The label of each track, such as "#4 behind #2" of track 3 behind track 1: pictures count from 1."""
    return [f"#{track.track_id + 1} behind #{track.behind + 1}" for track in tracks]
