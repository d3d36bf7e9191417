"""Prediction on a video file: tracked detections of every frame, and optionally a drawn video."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from bcnet.data.videos import UnreadableVideoError, Video, open_video
from bcnet.structures import Detections
from bcnet.structures.export import hidden_tracks_to_coco
from bcnet.tracking import InstanceTracker


@dataclass
class VideoResult:
    """Detections of a video, as annotations.

    Attributes:
        width, height: of the frames, pixels.
        rate: frames per second.
        frames: the annotations of each frame.
        hidden: the tracks that are hidden in each frame (`bcnet.structures.export.hidden_tracks_to_coco`).
    """

    width: int = 0
    height: int = 0
    rate: float = 0.0
    frames: list[list[dict]] = field(default_factory=list)
    hidden: list[list[dict]] = field(default_factory=list)


def predict_video(
    predict: Callable[[list[np.ndarray]], list[Detections]],
    annotations_of: Callable[[Detections], list[dict]],
    source: str,
    *,
    score_threshold: float = 0.0,
    drawn: str | None = None,
    layers: bool = False,
    batch_size: int = 4,
    progress: bool = True,
) -> VideoResult:
    """Predicts and tracks the instances in every frame of a video file or animation.

    Args:
        predict: from frames, uint8 [H, W, 3] RGB, to their detections, down to `CONTINUING_SCORE` if the threshold is
            higher: they go on with a track.
        annotations_of: converts the detections of a frame, which have `Detections.track_ids`.
        source: as `bcnet.data.videos.open_video` takes it.
        score_threshold: lowest score of a detection that begins a track (`InstanceTracker`).
        drawn: an mp4 to write (`bcnet.visualization.video.DrawnVideo`); None draws nothing.
        layers: draw sheets with both layers and the depth order.
        batch_size: frames that are predicted together.
        progress: show a progress bar.

    Raises:
        UnreadableVideoError: the source cannot be opened or has no frame; names it.
        OSError: the mp4 cannot be written.
        ImportError: the package trackers is absent.
    """
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(open_video(source))
        result = VideoResult(rate=video.rate)
        tracker = InstanceTracker(frame_rate=video.rate, new_track_score=score_threshold)
        output = None
        if drawn is not None:
            # Imported here: the fonts and colours of pictures take a second.
            from bcnet.visualization.video import DrawnVideo

            output = stack.enter_context(DrawnVideo(drawn, video.rate, layers=layers))
        bar = tqdm(total=video.count, desc=source, unit="frame", disable=not progress, leave=False)
        for frames in _batches(video, batch_size, stack.enter_context(bar)):
            result.height, result.width = frames[0].shape[:2]
            for frame, detections in zip(frames, predict(list(frames)), strict=True):
                detections = tracker.update(detections)
                result.frames.append(annotations_of(detections))
                result.hidden.append(hidden_tracks_to_coco(detections))
                if output is not None:
                    output.add(frame, detections)
        if not result.frames:
            raise UnreadableVideoError(f"{source!r} has no frame that can be read")
    return result


def _batches(video: Video, size: int, bar: tqdm) -> Iterator[Sequence[np.ndarray]]:
    while frames := list(itertools.islice(video.frames, size)):
        yield frames
        bar.update(len(frames))
