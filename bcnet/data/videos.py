"""Frames of video files, animated images (GIF, WebP, APNG, AVIF) and webcams, as uint8 RGB arrays.

Letters: H x W frame.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageSequence

from bcnet.data.images import UnreadableImageError, foreign_format, to_rgb

logger = logging.getLogger(__name__)

DEFAULT_RATE = 25.0  # frames per second, if the source does not specify it
ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_WEBCAM = re.compile(r"webcam(?::(\d+))?")


class UnreadableVideoError(ValueError):
    """A video file or camera that cannot be opened or has no readable frame."""


@dataclass
class Video:
    """An open video.

    Attributes:
        frames: iterator of uint8 [H, W, 3] RGB frames.
        rate: frames per second.
        count: number of frames; None if unknown.
    """

    frames: Iterator[np.ndarray]
    rate: float
    count: int | None


def is_webcam(name: str) -> bool:
    """True for "webcam" and "webcam:N"."""
    return bool(_WEBCAM.fullmatch(name))


def is_video(name: str) -> bool:
    """True for a webcam name, and for a file whose content is a video or an animated image."""
    if is_webcam(name):
        return True
    is_animation = _is_animation(name)
    return _has_video_stream(name) if is_animation is None else is_animation


@contextlib.contextmanager
def open_video(source: str) -> Iterator[Video]:
    """Opens a video file, an animated image, or a camera: "webcam", or "webcam:N" for the N-th, counting from 0.

    Frames of a video file are rotated according to its metadata.

    Raises:
        UnreadableVideoError: the source cannot be opened; names it.
    """
    if _is_animation(source):
        with Image.open(source) as image:
            yield _animation(image, source)
        return
    camera = _WEBCAM.fullmatch(source)
    capture = cv2.VideoCapture(int(camera[1] or 0) if camera else source)
    try:
        if not capture.isOpened():
            raise UnreadableVideoError(f"{source!r} cannot be opened as {'a camera' if camera else 'a video'}")
        rate = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        yield Video(
            _captured(capture),
            rate if math.isfinite(rate) and 0 < rate <= 240 else DEFAULT_RATE,
            count if count > 0 else None,
        )
    finally:
        capture.release()


def _captured(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        read, frame = capture.read()
        if not read:
            return
        yield np.ascontiguousarray(frame[:, :, ::-1])


def _animation(image: Image.Image, name: str) -> Video:
    count = getattr(image, "n_frames", 1)
    return Video(_frames(image, name, count), _mean_rate(image, count), count)


def _mean_rate(image: Image.Image, count: int) -> float:
    """Frames per second, so that frames of unequal durations take as long together as in the animation."""
    durations = []
    for index in range(count):
        try:
            image.seek(index)
            image.load()  # for some formats the duration is available only after loading
        except Exception:  # of a damaged frame, which `_frames` reports
            break
        # Browsers show frames without a duration for a tenth of a second.
        durations.append(max(image.info.get("duration") or 100, 20))
    image.seek(0)
    return 1000 * len(durations) / sum(durations) if durations else 10.0


def _frames(image: Image.Image, name: str, count: int) -> Iterator[np.ndarray]:
    for number, frame in enumerate(ImageSequence.Iterator(image), start=1):
        try:
            yield np.asarray(to_rgb(frame))
        except UnreadableImageError as error:
            logger.warning("%s ends after %d of %d frames: %s", name, number - 1, count, error)
            return


def _is_animation(name: str) -> bool | None:
    """Whether an image file is animated; None if the file is not an image."""
    try:
        with Image.open(name) as image:
            return image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False)
    except Exception:  # decoders raise all kinds of errors
        return None


def _has_video_stream(name: str) -> bool:
    import av
    from av.error import FFmpegError

    try:
        with open(name, "rb") as file:
            if foreign_format(file.read(32)) is not None:  # FFmpeg opens images of these formats as videos
                return False
        with av.open(name) as container:
            # FFmpeg also opens other images (by content or suffix) and text files as videos.
            is_still = container.format.name in ("image2", "tty") or container.format.name.endswith("_pipe")
            return bool(container.streams.video) and not is_still
    except (FFmpegError, OSError, ValueError):
        return False
