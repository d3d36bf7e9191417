"""Pictures of results for people: drawn into the predicted image, as PIL images (`Detections.plot`).

Letters: H x W image.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from PIL import Image, ImageShow

from bcnet.data.image_source import rgb_image
from bcnet.structures import Detections
from bcnet.visualization.layers import draw_layers
from bcnet.visualization.overlay import draw_detections

SMALLEST_SIDE = 640  # longer side to which smaller images are enlarged, pixels


def plot_detections(
    detections: Detections, *, layers: bool = False, image: Any = None, format: str = "BGR", **options: Any
) -> Image.Image:
    """See `Detections.plot`."""
    pixels = detections.image if image is None else rgb_image(image, format)
    options.setdefault("long_side", picture_side(pixels.shape[:2]))
    return Image.fromarray((draw_layers if layers else draw_detections)(pixels, detections, **options))


def picture_side(image_size: tuple[int, int]) -> int:
    """Longer side of the picture of an image of (H, W): its own, but at least `SMALLEST_SIDE` pixels."""
    return max(*image_size, SMALLEST_SIDE)


def show_picture(picture: Image.Image) -> None:
    """See `Detections.show`."""
    if "ipykernel" in sys.modules:
        importlib.import_module("IPython.display").display(picture)
    elif not _has_screen() or not ImageShow.show(picture, title="bcnet"):
        raise OSError("there is no image viewer here; write the picture to a file with save(), or open plot() yourself")


def _has_screen() -> bool:
    """Whether an image viewer can open a window: without one, Linux' viewers write a page of their own errors."""
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
