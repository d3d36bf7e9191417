"""Drawing of occlusion relations: arrows from occluder to occludee, and the depth-order panel with its legend.

Letters: D detections, h x w canvas.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bcnet.ops.paste import Window
from bcnet.structures import Detections
from bcnet.visualization import style
from bcnet.visualization.arrows import ArrowRouter, draw_arrow

DEPTH_COLORMAP = cv2.COLORMAP_CIVIDIS  # rises evenly in brightness, and alike for any colour vision
MAX_ARROWS = 20  # of an image, by confidence margin: more cannot be followed

Region = tuple[Window, np.ndarray]


def draw_arrows(
    canvas: np.ndarray,
    detections: Detections,
    regions: Sequence[Region],
    colors: Sequence[style.Color],
    margin: float = 0,
    anchors: Sequence[tuple[float, float]] | None = None,
) -> None:
    """An arrow for each edge of the occlusion graph, in the colour of the occluder (in place).

    Drawn are the edges that agree with the depth order, the `MAX_ARROWS` of the largest confidence margin. The margin
    of an edge is the difference between the confidences of its direction and of the opposite one; the opacity of an
    arrow grows with it. An arrow that would lie on another one is bent.

    Args:
        canvas: uint8 [h, w, 3], RGB, of the detections' image size.
        detections: with relations.
        regions: the mask of each detection: its window in the canvas and bool there.
        colors: of each detection.
        margin: pixels that stay free at both ends.
        anchors: x, y of the ends of arrows; None takes `place_anchors`.
    """
    graph = detections.occlusion
    if anchors is None:
        anchors = place_anchors(regions, detections.boxes.tolist(), margin)
    width = max(2, style.line_width(canvas.shape[:2]))
    router = ArrowRouter((canvas.shape[0], canvas.shape[1]), anchors, margin, width)
    edges = graph.order.kept[:MAX_ARROWS]
    curves = [router.route(edge.occluder, edge.occludee) for edge in edges]
    # The largest confidence margin last, on top of the others.
    for edge, curve in reversed(list(zip(edges, curves, strict=True))):
        if curve is not None:
            confidence_margin = edge.confidence - float(graph.confidence[edge.occluder, edge.occludee])
            draw_arrow(canvas, curve, colors[edge.occluder], width, opacity=0.4 + 0.6 * confidence_margin)


def order_panel(
    canvas: np.ndarray,
    detections: Detections,
    regions: Sequence[Region],
    colors: Sequence[style.Color],
    numbers: Sequence[str],
) -> np.ndarray:
    """Masks bright in front and dark behind, arrows, and on each mask a disc with its number: a new image.

    Args:
        canvas, detections, regions, colors: as `draw_arrows`.
        numbers: of each detection, as labels have them.
    """
    base, canvas = canvas, canvas.copy()
    depth = detections.occlusion.order.depth
    shades = depth_colors(int(depth.max(initial=0)))
    for index in np.argsort(-depth, kind="stable"):
        window, mask = regions[index]
        area = canvas[window.y0 : window.y1, window.x0 : window.x1]
        # On the image, not on what lies behind: the colours are those of the legend.
        ground = base[window.y0 : window.y1, window.x0 : window.x1][mask]
        area[mask] = np.round(0.2 * ground + 0.8 * np.array(shades[depth[index]]))
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(area, contours, -1, colors[index], style.line_width(canvas.shape[:2]), cv2.LINE_AA)
    size = style.font_size(canvas.shape[:2])
    widest = max((style.text_size(number, size, bold=True)[0] for number in numbers), default=0)
    radius = round(0.6 * max(widest, size))
    anchors = place_anchors(regions, detections.boxes.tolist(), radius + 2)
    draw_arrows(canvas, detections, regions, colors, margin=radius + 2, anchors=anchors)
    written = []
    for index, (x, y) in enumerate((round(x), round(y)) for x, y in anchors):
        text = numbers[index]
        width, height = style.text_size(text, size, bold=True)
        cv2.circle(canvas, (x, y), radius + 2, style.WHITE, -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, y), radius, colors[index], -1, cv2.LINE_AA)
        written.append((x - width // 2, y - height // 2, text, style.readable_on(colors[index])))
    return style.draw_texts(canvas, written, size, bold=True)


def depth_colors(deepest: int) -> list[style.Color]:
    """The colour of each depth 0..deepest: bright in front, dark behind."""
    values = np.linspace(255, 40, max(deepest, 1) + 1).round().astype(np.uint8)[:, None]
    ramp = cv2.applyColorMap(values, DEPTH_COLORMAP)[: deepest + 1, 0, ::-1]
    return [(int(red), int(green), int(blue)) for red, green, blue in ramp]


def place_anchors(
    regions: Sequence[Region], boxes: Sequence[Sequence[float]], radius: float
) -> list[tuple[float, float]]:
    """x, y of a place deep inside each mask, 2.5 radii away from those of earlier ones where the mask has room.

    Without a mask it is the box's centre.
    """
    anchors: list[tuple[float, float]] = []
    for (window, mask), box in zip(regions, boxes, strict=True):
        if not mask.any():
            anchors.append(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
            continue
        inside = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        rows, columns = np.ogrid[window.y0 : window.y1, window.x0 : window.x1]
        free = inside.copy()
        for x, y in anchors:
            free[(columns - x) ** 2 + (rows - y) ** 2 < (2.5 * radius) ** 2] = 0
        best = free if free.max(initial=0) > 0 else inside
        row, column = np.unravel_index(best.argmax(), best.shape)
        anchors.append((window.x0 + float(column), window.y0 + float(row)))
    return anchors
