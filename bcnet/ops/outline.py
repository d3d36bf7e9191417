"""Conversion of RLE masks to COCO polygons that rasterise to exactly the same mask."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcnet.ops.rle import RLE

# Maximum distance, in half pixels, of the outline from the simplified polygon. At 1/2 staircases become slanted lines
# (a third fewer points), and COCO's occluder masks are still reproduced exactly.
SIMPLIFICATION = 0.5


def rle_to_polygons(rle: RLE) -> list[list[float]]:
    """The outlines of a mask as COCO polygons, one for each connected component, including its holes.

    A contour drawn through pixel centres loses half a pixel on every side when pycocotools rasterises it.
    Therefore the mask is first upscaled by two, so that the outline runs a quarter of a pixel inside the pixels' edges,
    on the correct side of every pixel centre. COCO readers take the union of the polygons of an annotation, so a hole
    cannot be a separate polygon: it is joined to the outer contour by a line traversed in both directions, which
    encloses no area.

    Args:
        rle: compressed RLE.

    Returns:
        list: flat lists x0, y0, x1, y1, ... in absolute pixels, multiples of 1/4, of at least 4 points each;
        an empty list for an empty mask. `segmentation_to_rle` of the polygons equals the mask.
    """
    x0, y0, width, height = coco_mask.toBbox(rle).astype(np.int64).tolist()
    if width == 0 or height == 0:
        return []
    window = coco_mask.decode(rle)[y0 : y0 + height, x0 : x0 + width]
    twice = cv2.resize(window, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for simplified in (True, False):
        polygons = [
            ((points + 0.5) / 2 + (x0, y0)).ravel().tolist() for points in _joined(contours, hierarchy[0], simplified)
        ]
        if not simplified or coco_mask.merge(coco_mask.frPyObjects(polygons, *rle["size"])) == rle:
            break
    return polygons


def _joined(contours: Sequence[np.ndarray], hierarchy: np.ndarray, simplified: bool) -> list[np.ndarray]:
    """Each outer contour with its holes, int32 [points, 2] in half pixels.

    Args:
        contours: int32 [points, 1, 2] each.
        hierarchy: int32 [contours, 4]: next contour of the level, previous one, first hole, parent; -1 for none.
        simplified: whether to simplify the contours.
    """
    lines = []
    for contour in contours:
        reduced = cv2.approxPolyDP(contour, SIMPLIFICATION, True) if simplified else contour
        lines.append((reduced if len(reduced) >= 3 else contour)[:, 0])
    joined = []
    for outer, (_, _, hole, parent) in zip(lines, hierarchy, strict=True):
        if parent >= 0:
            continue
        parts = [outer]
        if hole >= 0:
            parts.append(outer[:1])
        while hole >= 0:
            parts += [lines[hole], lines[hole][:1], outer[:1]]
            hole = hierarchy[hole][0]
        joined.append(np.concatenate(parts))
    return joined
