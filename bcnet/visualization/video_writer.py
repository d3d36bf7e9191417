"""Writing of videos that browsers play: H.264 in mp4.

Letters: H x W frame.
"""

from __future__ import annotations

import os
from fractions import Fraction
from types import TracebackType

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

QUALITY = "20"  # x264's constant rate factor: lower is better and larger, 23 is its default
BT709, LIMITED_RANGE = 1, 1  # FFmpeg's numbers, for the matrix, the primaries and the transfer alike


class VideoWriter:
    """An mp4 that is written frame by frame, with H.264 and the pixel format yuv420p; a context manager.

    The file is made with the first frame, whose size is that of all. Odd sides, which the pixel format does not allow,
    get one pixel more: the last column or row comes twice. The index stands in front, so that playing begins before the
    download ends.

    Args:
        path: of the mp4; its folder is made when missing.
        rate: frames per second.

    Raises:
        OSError: the file cannot be written; names it.
    """

    def __init__(self, path: str | os.PathLike, rate: float) -> None:
        self.path = os.fspath(path)
        self.rate = Fraction(rate).limit_denominator(1001)
        self._output: tuple[OutputContainer, VideoStream] | None = None

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, uint8 [H, W, 3] RGB."""
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            if self._output is None:
                self._output = self._open(frame.shape[0], frame.shape[1])
            container, stream = self._output
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(stream.width, stream.height, "yuv420p", dst_colorspace=BT709)
            container.mux(stream.encode(picture))
        except FFmpegError as error:
            raise OSError(f"{self.path} cannot be written: {error}") from error

    def close(self) -> None:
        """Completes the file."""
        if self._output is None:
            return
        container, stream = self._output
        try:
            container.mux(stream.encode(None))
        finally:
            container.close()
            self._output = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, height: int, width: int) -> tuple[OutputContainer, VideoStream]:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        container = av.open(self.path, "w", format="mp4", options={"movflags": "faststart"})
        stream = container.add_stream("libx264", rate=self.rate, options={"crf": QUALITY})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        # Players guess the colour space of a video that does not name it, by its size.
        context = stream.codec_context
        context.color_range = LIMITED_RANGE
        context.colorspace = context.color_primaries = context.color_trc = BT709
        return container, stream
