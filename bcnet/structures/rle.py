"""COCO run-length encoding: from windows of an image, without the image.

An RLE here is pycocotools' compressed form, ``{"size": [H, W], "counts": bytes}``; JSON carries the
counts as ASCII text.
"""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask


def encode_window(mask: np.ndarray, x0: int, y0: int, image_size: tuple[int, int]) -> dict:
    """Encodes a mask that is zero outside a window, in time proportional to the window.

    Args:
        mask: bool or uint8 [h, w], the window's pixels.
        x0, y0: image coordinates of the window's first pixel; the window lies inside the image.
        image_size: (H, W).

    Returns:
        dict: the compressed RLE of the full-image mask, the bytes that `pycocotools.mask.encode` gives.
    """
    height, width = image_size
    # COCO runs go down the columns: one row of zeros above and below turns each run into a +1 and a -1.
    columns = np.pad(np.asarray(mask, dtype=np.int8).T, ((0, 0), (1, 1)))
    steps = np.diff(columns, axis=1)
    column, row = np.nonzero(steps)
    edges = (x0 + column) * height + y0 + row  # starts and ends alternate
    if len(edges) > 2:
        # A run that reaches the last row and goes on in the first row of the next column is one run.
        joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    if counts[-1] == 0:  # the mask ends with the image's last pixel
        counts = counts[:-1]
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
