"""Sheets of panels: pictures of one size in rows, each under its title, with sentences for what has no picture.

Letters: h x w panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bcnet.visualization import style

GAP = 12  # pixels of white between panels
NARROWEST = 9  # times the font size: the width that the words of titles need; narrower panels get white beside them


@dataclass
class Panel:
    """A picture with its title.

    Attributes:
        picture: uint8 [h, w, 3] RGB; None: the sentence `explanation` is in its place.
        title: in bold.
        explanation: below the title, in as many lines as it takes.
        legend: colours and what they mean, in a line below.
    """

    picture: np.ndarray | None
    title: str
    explanation: str = ""
    legend: Sequence[tuple[style.Color, str]] = ()


def sheet(panels: Sequence[Panel], *, columns: int = 2, keep_places: bool = False) -> np.ndarray:
    """Panels in rows on white: uint8 RGB.

    Args:
        panels: the pictures, of one size, the first of which exists.
        columns: panels beside each other; three pictures are in one row, not in two of two places.
        keep_places: a panel without a picture keeps its place, with its sentence; so the sheets of a video have one
            layout. Otherwise the sentences stand together where a row has a place left, or below the panels.
    """
    first = panels[0].picture
    if first is None:
        raise ValueError("the first panel of a sheet needs a picture")
    height, width = first.shape[:2]
    size = style.font_size((height, width))
    missing = NARROWEST * size - width
    if missing > 0:
        width += missing
        panels = [replace(panel, picture=_widened(panel.picture, missing)) for panel in panels]
    sentences = [panel for panel in panels if panel.picture is None]
    cells: list[Panel | list[Panel]] = []
    for panel in panels:
        if panel.picture is not None:
            cells.append(panel)
        elif keep_places:
            cells.append([panel])
    # Three pictures have a row of their own rather than a place without one.
    columns = 3 if (columns, len(cells)) == (2, 3) else min(columns, len(cells))
    below: list[Panel] = []
    if sentences and not keep_places:
        if len(cells) % columns:
            cells.append(sentences)
        else:
            below = sentences
    starts = range(0, len(cells), columns)
    rows = [_row(cells[start : start + columns], columns, (height, width), size) for start in starts]
    full_width = columns * width + (columns - 1) * GAP
    if below:
        rows.append(_sentences(below, full_width, size))
    gaps = [np.full((GAP, full_width, 3), style.PAPER, dtype=np.uint8)] * (len(rows) - 1)
    parts = [part for pair in zip(rows, [*gaps, None], strict=True) for part in pair if part is not None]
    return np.concatenate(parts)


def _widened(picture: np.ndarray | None, missing: int) -> np.ndarray | None:
    if picture is None:
        return None
    return np.pad(picture, ((0, 0), (0, missing), (0, 0)), constant_values=style.PAPER[0])


def _row(cells: Sequence[Panel | list[Panel]], columns: int, panel_size: tuple[int, int], size: int) -> np.ndarray:
    height, width = panel_size
    line = style.text_size("X", size)[1]
    heads = [_head_lines(cell, width, size) for cell in cells if isinstance(cell, Panel)]
    head = GAP // 2 + line * max(heads, default=0) + GAP // 2
    row = np.full((head + height, columns * width + (columns - 1) * GAP, 3), style.PAPER, dtype=np.uint8)
    for position, cell in enumerate(cells):
        x = position * (width + GAP)
        area = row[:, x : x + width]
        if isinstance(cell, Panel):
            area[:] = _with_head(area, cell, size)
            if cell.picture is not None:
                area[head:] = cell.picture
        else:
            text = _sentences(cell, width, size)[: head + height]
            area[: len(text)] = text
    return row


def _head_lines(panel: Panel, width: int, size: int) -> int:
    explanation = style.wrapped(panel.explanation, size, width)
    return 1 + len(explanation) + (len(_legend_lines(panel.legend, width, size)) if panel.legend else 0)


def _with_head(area: np.ndarray, panel: Panel, size: int) -> np.ndarray:
    line, width = style.text_size("X", size)[1], area.shape[1]
    title = (0, GAP // 2, style.shortened(panel.title, size, width, bold=True), style.INK)
    area = style.draw_texts(np.ascontiguousarray(area), [title], size, bold=True)
    y, texts = GAP // 2 + line, []
    for text in style.wrapped(panel.explanation, size, width):
        texts.append((0, y, text, style.INK))
        y += line
    for entries in _legend_lines(panel.legend, width, size):
        x = 0
        for color, text in entries:
            area[y + 2 : y + line - 2, x : x + line] = style.mixed(color, style.BLACK, 0.3)
            area[y + 3 : y + line - 3, x + 1 : x + line - 1] = color
            texts.append((x + line + 4, y, text, style.INK))
            x += _entry_width(text, size)
        y += line
    return style.draw_texts(area, texts, size)


def _legend_lines(
    legend: Sequence[tuple[style.Color, str]], width: int, size: int
) -> list[list[tuple[style.Color, str]]]:
    lines: list[list[tuple[style.Color, str]]] = []
    x = width
    for color, text in legend:
        needed = _entry_width(text, size)
        if x + needed > width:
            lines.append([])
            x = 0
        lines[-1].append((color, text))
        x += needed
    return lines


def _entry_width(text: str, size: int) -> int:
    """Of a swatch as wide as a line is high, and its text."""
    return style.text_size("X", size)[1] + 4 + style.text_size(text, size)[0] + size


def _sentences(panels: Sequence[Panel], width: int, size: int) -> np.ndarray:
    """Titles and sentences below each other, on white."""
    line = style.text_size("X", size)[1]
    bold, plain, y = [], [], GAP // 2
    for panel in panels:
        bold.append((0, y, style.shortened(panel.title, size, width, bold=True), style.INK))
        y += line
        for text in style.wrapped(panel.explanation, size, width):
            plain.append((0, y, text, style.INK))
            y += line
        y += line // 2
    paper = np.full((y, width, 3), style.PAPER, dtype=np.uint8)
    return style.draw_texts(style.draw_texts(paper, bold, size, bold=True), plain, size)
