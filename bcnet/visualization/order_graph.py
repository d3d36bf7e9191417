"""The depth order of an image's detections as a node-link graph in SVG: in front at the top, arrows to what is covered.

Letters: D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np

from bcnet.structures import Detections
from bcnet.visualization import style
from bcnet.visualization.overlay import instance_colors, label_texts

_NODE_WIDTH, _NODE_HEIGHT, _GAP, _ROW_GAP, _MARGIN = 120, 30, 18, 58, 64
_SIZE = 13  # of the font, pixels


def order_graph_svg(detections: Detections, *, selected: int | None = None) -> str:
    """The occlusion graph of detections with relations, as an SVG element.

    One row for each depth, 0 at the top. Each detection that occludes another or is occluded is a node in its colour
    with its number and class; an arrow leads from an occluder to what it occludes, the more certain the more opaque. Of
    the others the last line says how many there are.

    Args:
        detections: with relations (``with_occluder=True`` in inference).
        selected: position of a detection whose node has a frame.

    Returns:
        str: an ``<svg>`` that needs nothing from elsewhere; its texts are escaped.

    Raises:
        ValueError: the detections have no relations.
    """
    graph = detections.occlusion
    order = graph.order
    linked = sorted({index for edge in order.kept for index in (edge.occluder, edge.occludee)})
    places, width, height = _places(linked, order.depth)
    colors, texts = instance_colors(detections), label_texts(detections, numbered=True, scores=False)
    parts = []
    for row in range(int(order.depth[linked].max(initial=-1)) + 1):
        word = {0: "0 in front"}.get(row, str(row))
        parts.append(_text(4, _row_y(row) + _NODE_HEIGHT / 2, word, anchor="start", color="#666"))
    # The most certain last, on top of the others.
    for edge in reversed(order.kept):
        margin = edge.confidence - float(graph.confidence[edge.occluder, edge.occludee])
        label = f"{texts[edge.occluder]} is in front of {texts[edge.occludee]}, confidence {edge.confidence:.2f}"
        parts.append(_arrow(places[edge.occluder], places[edge.occludee], colors[edge.occluder], margin, label))
    for index in linked:
        parts.append(_node(places[index], texts[index], colors[index], selected == index))
    alone = len(detections) - len(linked)
    if not linked:
        sentence = "no object is in front of another" if alone else "there is no object"
    else:
        sentence = f"{alone} more without occlusion" if alone else ""
    parts.append(_text(4, height - 12, sentence, anchor="start", color="#666"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="order-graph" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" style="max-width: 100%; background: #fff" role="img" aria-label="depth order">'
        f"{''.join(parts)}</svg>"
    )


def _places(linked: Sequence[int], depth: np.ndarray) -> tuple[dict[int, tuple[float, float]], float, float]:
    """The upper left corner of each node, width and height of the picture."""
    rows = [[index for index in linked if depth[index] == row] for row in range(int(depth[linked].max(initial=-1)) + 1)]
    longest = max(map(len, rows), default=0)
    width = max(360.0, _MARGIN + longest * (_NODE_WIDTH + _GAP) + _GAP)
    places = {}
    for number, row in enumerate(rows):
        left = _MARGIN + (width - _MARGIN - len(row) * (_NODE_WIDTH + _GAP) + _GAP) / 2
        for position, index in enumerate(row):
            places[index] = (left + position * (_NODE_WIDTH + _GAP), _row_y(number))
    return places, width, _row_y(len(rows)) + (0 if rows else 12) + 12


def _row_y(row: int) -> float:
    return 12 + row * (_NODE_HEIGHT + _ROW_GAP)


def _node(place: tuple[float, float], text: str, color: style.Color, selected: bool) -> str:
    x, y = place
    frame = ' stroke="#000" stroke-width="3"' if selected else ""
    text = style.shortened(text, _SIZE, _NODE_WIDTH - 8)
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{_NODE_WIDTH}" height="{_NODE_HEIGHT}" rx="6" fill="{_hex(color)}"{frame}/>'
        + _text(x + _NODE_WIDTH / 2, y + _NODE_HEIGHT / 2, text, color=_hex(style.readable_on(color)))
    )


def _arrow(
    occluder: tuple[float, float], occludee: tuple[float, float], color: style.Color, margin: float, label: str
) -> str:
    """From the lower edge of the occluder's node to the upper edge of the occludee's, which lies in a lower row."""
    x0, y0 = occluder[0] + _NODE_WIDTH / 2, occluder[1] + _NODE_HEIGHT
    x1, y1 = occludee[0] + _NODE_WIDTH / 2, occludee[1]
    bend = (y1 - y0) / 2
    return (
        f'<g fill="{_hex(color)}" stroke="{_hex(color)}" opacity="{0.4 + 0.6 * max(0.0, margin):.2f}">'
        f"<title>{escape(label)}</title>"
        f'<path d="M{x0:g} {y0:g} C{x0:g} {y0 + bend:g} {x1:g} {y1 - bend:g} {x1:g} {y1 - 8:g}" fill="none" '
        f'stroke-width="2.5"/><path d="M{x1:g} {y1:g} l-5 -9 h10 z"/></g>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "middle", color: str = "#000") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{color}" font-family="sans-serif" font-size="{_SIZE}" '
        f'text-anchor="{anchor}" dominant-baseline="central">{escape(text)}</text>'
    )


def _hex(color: style.Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
