"""Drawing of occlusion relations: arrows from occluder to occludee, and the depth-order panel.

Letters: D detections, h x w canvas.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bcnet.ops.paste import Window
from bcnet.structures import Detections
from bcnet.visualization import style

DEPTH_COLORMAP = cv2.COLORMAP_CIVIDIS  # rises evenly in brightness, and alike for any colour vision


def draw_arrows(
    canvas: np.ndarray,
    detections: Detections,
    regions: Sequence[tuple[Window, np.ndarray]],
    colors: Sequence[style.Color],
    margin: float = 0,
) -> None:
    """An arrow for each edge of the occlusion graph, in the colour of the occluder (in place).

    Drawn are the edges that agree with the depth order. The opacity of an arrow grows with its confidence margin, the
    difference between the confidences of its direction and of the opposite one.

    Args:
        canvas: uint8 [h, w, 3], RGB, of the detections' image size.
        detections: with relations.
        regions: the mask of each detection: its window in the canvas and bool there.
        colors: of each detection.
        margin: pixels that stay free at both ends.
    """
    graph = detections.occlusion
    anchors = [_anchor(region, box) for region, box in zip(regions, detections.boxes.tolist(), strict=True)]
    width = max(2, style.line_width(canvas.shape[:2]))
    # The largest confidence margin last, on top of the others.
    for edge in reversed(graph.order.kept):
        confidence_margin = edge.confidence - float(graph.confidence[edge.occluder, edge.occludee])
        start, end = np.array(anchors[edge.occluder]), np.array(anchors[edge.occludee])
        length = float(np.linalg.norm(end - start))
        if length < 2 * margin + 2:
            continue
        start, end = start + (end - start) * margin / length, end - (end - start) * margin / length
        low = np.maximum(np.minimum(start, end).astype(int) - 8 * width, 0)
        high = np.maximum(start, end).astype(int) + 8 * width
        area = canvas[low[1] : high[1], low[0] : high[0]]
        drawn = area.copy()
        _arrow(drawn, start - low, end - low, colors[edge.occluder], width)
        opacity = 0.25 + 0.75 * confidence_margin
        area[:] = cv2.addWeighted(drawn, opacity, area, 1 - opacity, 0)


def order_panel(
    canvas: np.ndarray,
    detections: Detections,
    regions: Sequence[tuple[Window, np.ndarray]],
    colors: Sequence[style.Color],
) -> np.ndarray:
    """Masks bright in front and dark behind, arrows, and on each mask its depth: a new image.

    Args: as `draw_arrows`.
    """
    depth = detections.occlusion.order.depth
    deepest = max(int(depth.max(initial=0)), 1)
    ramp = cv2.applyColorMap(np.linspace(255, 40, deepest + 1).round().astype(np.uint8)[:, None], DEPTH_COLORMAP)
    for index in np.argsort(-depth, kind="stable"):
        window, mask = regions[index]
        area = canvas[window.y0 : window.y1, window.x0 : window.x1]
        area[mask] = np.round(0.3 * area[mask] + 0.7 * ramp[depth[index], 0, ::-1])
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(area, contours, -1, colors[index], style.line_width(canvas.shape[:2]), cv2.LINE_AA)
    size = style.font_size(canvas.shape[:2])
    radius = round(0.75 * max(style.text_size(str(deepest), size, bold=True)[0], size))
    draw_arrows(canvas, detections, regions, colors, margin=radius + 2)
    written = []
    for index, (region, box) in enumerate(zip(regions, detections.boxes.tolist(), strict=True)):
        x, y = (round(value) for value in _anchor(region, box))
        text = str(depth[index])
        width, height = style.text_size(text, size, bold=True)
        cv2.circle(canvas, (x, y), radius + 2, style.WHITE, -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, y), radius, colors[index], -1, cv2.LINE_AA)
        written.append((x - width // 2, y - height // 2, text, style.readable_on(colors[index])))
    return style.draw_texts(canvas, written, size, bold=True)


def _anchor(region: tuple[Window, np.ndarray], box: Sequence[float]) -> tuple[float, float]:
    """x, y of the place deepest inside a mask; without a mask, the box's centre."""
    window, mask = region
    if not mask.any():
        return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    inside = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return window.x0 + float(x) - 1, window.y0 + float(y) - 1


def _arrow(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, color: style.Color, width: int) -> None:
    """A line with a head at its end, with a dark rim so that it shows on any ground (in place)."""
    length = float(np.linalg.norm(end - start))
    along = (end - start) / length
    across = np.array([-along[1], along[0]])
    head = min(7.0 * width, 0.6 * length)
    base = end - head * along
    triangle = np.array([end, base + 0.45 * head * across, base - 0.45 * head * across])
    for paint, extra in ((style.INK, 2), (color, 0)):
        cv2.line(canvas, _pixel(start), _pixel(base), paint, width + 2 * extra, cv2.LINE_AA)
        cv2.fillPoly(canvas, [np.round(triangle).astype(np.int32)], paint, cv2.LINE_AA)
        if extra:
            cv2.polylines(canvas, [np.round(triangle).astype(np.int32)], True, paint, 2 * extra, cv2.LINE_AA)


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
