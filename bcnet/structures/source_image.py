"""The image that detections were made of: its file or URL, and how to read its pixels again.

Letters: H x W image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_STRIDE = 5  # pixels are compared at every fifth row and column
_SAME, _OTHER = 2.0, 4.0  # mean difference that resampling leaves; how much nearer the swapped image must be


@dataclass(frozen=True)
class SourceImage:
    """Reference to an image. A file is read when its pixels are asked for; arrays are kept, and not copied.

    Attributes:
        read: gives the pixels, uint8 [H, W, 3] RGB.
        path: file or URL; None for an image that came as an array.
    """

    read: Callable[[], np.ndarray]
    path: str | None = None

    def is_swapped(self, image: np.ndarray) -> bool:
        """Whether uint8 [H, W, 3] are the pixels of this image with red and blue exchanged.

        False where the image cannot be read any more, or is of another size.
        """
        try:
            own = self.read()
        except (OSError, ValueError):
            return False
        if own.shape != image.shape:
            return False
        given, own = (pixels[::_STRIDE, ::_STRIDE].astype(np.float32) for pixels in (image, own))
        difference, swapped = np.abs(given - own).mean(), np.abs(given[:, :, ::-1] - own).mean()
        return bool(difference > _SAME and swapped < difference / _OTHER)
