"""Writing of videos that browsers play: H.264 in mp4.

Letters: H x W frame.
"""

from __future__ import annotations

import os
from fractions import Fraction
from types import TracebackType

import av
import numpy as np

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
        self._container = None
        self._stream = None

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, uint8 [H, W, 3] RGB."""
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            if self._stream is None:
                self._open(*frame.shape[:2])
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            self._encode(picture.reformat(self._stream.width, self._stream.height, "yuv420p", dst_colorspace=BT709))
        except av.FFmpegError as error:
            raise OSError(f"{self.path} cannot be written: {error}") from error

    def close(self) -> None:
        """Completes the file."""
        if self._container is None:
            return
        try:
            self._encode(None)
        finally:
            self._container.close()
            self._container = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, height: int, width: int) -> None:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        self._container = av.open(self.path, "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=self.rate, options={"crf": QUALITY})
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        # Players guess the colour space of a video that does not name it, by its size.
        context = self._stream.codec_context
        context.color_range = LIMITED_RANGE
        context.colorspace = context.color_primaries = context.color_trc = BT709

    def _encode(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
