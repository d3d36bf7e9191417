"""Sheets of heat maps: what the mask head predicts in each RoI, as probabilities.

Letters: D detections, M mask side, H x W image, h x w picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from bcnet.maps import UNKNOWN, MapSpec
from bcnet.structures import Detections
from bcnet.visualization import style
from bcnet.visualization.overlay import check_image, label_texts

COLORMAP = cv2.COLORMAP_MAGMA  # rises evenly in brightness: the same order in grey, and for any colour vision
GAP = 12  # pixels of white between squares and titles
# Title over the maps of a layer.
TITLES = {"occluder": "Occluder layer: occluder", "occludee": "Occludee layer: instance", "amodal": "Amodal mask"}


def draw_heat_maps(
    image: np.ndarray,
    detections: Detections,
    *,
    cell: int = 140,
    rows: int = 8,
    columns: int | None = None,
    scores: bool = True,
    positions: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Sheets of heat maps: the RoI of each detection as the mask head sees it, and its maps.

    One line per detection: a picture of the RoI stretched to a square, then occluder boundary, occluder mask, amodal
    mask, occludee boundary and occludee mask as M x M squares, all on one colour scale from 0 to 1. Maps that the
    detections do not carry are left out.

    Args:
        image: uint8 [H, W, 3], RGB.
        detections: of this image.
        cell: pixels of a square.
        rows: detections below each other on a sheet.
        columns: detections beside each other; by default 1, and 2 where more than `rows` detections come.
        scores: names end with the score.
        positions: of the detections that are drawn, with the numbers and colours that they have among all; None draws
            all of them.

    Returns:
        list: sheets, uint8 [h, w, 3] RGB, with the detections in their order; none without detections or without maps.

    Raises:
        ValueError: as `draw_detections`.
    """
    check_image(image, detections)
    detections = detections.to("cpu")
    if not _columns(detections):
        return []
    texts = label_texts(detections, numbered=True, scores=scores)
    drawn = range(len(detections)) if positions is None else positions
    columns = columns or (1 if len(drawn) <= rows else 2)
    lines = [_heat_map_line(image, detections, index, texts[index], cell) for index in drawn]
    sheets = []
    for start in range(0, len(lines), rows * columns):
        page = lines[start : start + rows * columns]
        used_rows = math.ceil(len(page) / columns)
        blocks = [page[i : i + used_rows] for i in range(0, len(page), used_rows)]
        sheets.append(_heat_map_sheet(blocks, detections, cell))
    return sheets


def _columns(detections: Detections) -> list[MapSpec]:
    """The maps in the order of the columns, as in the paper's figures: the occluder layer and boundaries first.

    The maps of a layer lie side by side, under one title.
    """
    shown = [spec for spec in detections.present if spec.kind != UNKNOWN]
    layers = list(dict.fromkeys(spec.layer for spec in shown))
    return sorted(shown, key=lambda spec: layers.index(spec.layer))[::-1]


def _heat_map_line(image: np.ndarray, detections: Detections, index: int, text: str, cell: int) -> np.ndarray:
    """Name plate above the RoI crop and its maps."""
    color = style.instance_color(index)
    size = max(11, cell // 10)
    plate_height = style.text_size("X", size)[1] + 4
    cells = [_roi_crop(image, detections.map_boxes[index].tolist(), cell)]
    for spec in _columns(detections):
        values = (detections.maps[spec.name][index].numpy().clip(0, 1) * 255).round().astype(np.uint8)
        heat = cv2.cvtColor(cv2.applyColorMap(values, COLORMAP), cv2.COLOR_BGR2RGB)
        heat = style.resized(heat, cell, cell, smooth=False)
        if (unknown := detections.find(spec.layer, UNKNOWN)) is not None:
            area = detections.maps[unknown.name][index].numpy()
            _hatch(heat, style.resized((area > 0.5).astype(np.uint8), cell, cell, smooth=False).astype(bool))
        cells.append(heat)
    gap = max(4, cell // 24)
    line = np.full((plate_height + cell, len(cells) * cell + (len(cells) - 1) * gap, 3), style.PAPER, dtype=np.uint8)
    for position, picture in enumerate(cells):
        x = position * (cell + gap)
        line[plate_height:, x : x + cell] = picture
    text = style.shortened(text, size, line.shape[1] - 8)
    width = style.text_size(text, size)[0] + 8
    line[:plate_height, :width] = color
    cv2.rectangle(line, (0, plate_height), (cell - 1, plate_height + cell - 1), color, max(2, cell // 50))
    return style.draw_texts(line, [(4, 2, text, style.readable_on(color))], size)


def _hatch(picture: np.ndarray, area: np.ndarray) -> None:
    """Marks an area of a picture (in place) as unknown: grey, with diagonal lines."""
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    picture[area] = style.mixed(style.UNKNOWN, style.BLACK, 0.5)
    picture[area & ((rows + columns) % 8 < 3)] = style.UNKNOWN


def _roi_crop(image: np.ndarray, box: Sequence[float], cell: int) -> np.ndarray:
    """The box's pixels stretched to a square, as RoIAlign samples them; black outside the image."""
    x0, y0, x1, y1 = box
    scale_x, scale_y = max(x1 - x0, 1e-3) / cell, max(y1 - y0, 1e-3) / cell
    # Pixel centres lie at half integers in the boxes' coordinates and at integers in OpenCV's.
    matrix = np.array([[scale_x, 0, x0 + scale_x / 2 - 0.5], [0, scale_y, y0 + scale_y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (cell, cell), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _heat_map_sheet(blocks: Sequence[Sequence[np.ndarray]], detections: Detections, cell: int) -> np.ndarray:
    line_height, line_width = blocks[0][0].shape[:2]
    gap = max(4, cell // 24)
    size = max(11, cell // 10)
    text_height = style.text_size("X", size)[1]
    head = 2 * text_height + GAP
    margin, between = GAP, 3 * GAP
    foot = text_height + 2 * GAP
    width = 2 * margin + len(blocks) * line_width + (len(blocks) - 1) * between
    height = head + len(blocks[0]) * (line_height + GAP) + foot
    sheet = np.full((height, width, 3), style.PAPER, dtype=np.uint8)
    plain, bold = [], []
    for column, block in enumerate(blocks):
        left = margin + column * (line_width + between)
        bold.append((left, GAP // 2, style.shortened("RoI", size, cell, bold=True), style.INK))
        plain.append((left, GAP // 2 + text_height, style.shortened("resized to a square", size, cell), style.INK))
        layer, layers = None, [spec.layer for spec in _columns(detections)]
        for position, spec in enumerate(_columns(detections), start=1):
            x = left + position * (cell + gap)
            if spec.layer != layer:
                layer = spec.layer
                title = _layer_title(layer, layers.count(layer) * (cell + gap) - gap, size)
                bold.append((x, GAP // 2, title, style.INK))
            plain.append((x, GAP // 2 + text_height, spec.title or spec.kind, style.INK))
        for row, line in enumerate(block):
            y = head + row * (line_height + GAP)
            sheet[y : y + line_height, left : left + line_width] = line
    _draw_scale(sheet, margin, height - foot + GAP // 2, cell * 2, text_height, size, plain)
    return style.draw_texts(style.draw_texts(sheet, plain, size), bold, size, bold=True)


def _layer_title(layer: str, width: int, size: int) -> str:
    """Title over the maps of a layer, of which some heads have one alone: its beginning if not all of it fits."""
    title = TITLES.get(layer, f"{layer} layer")
    if style.text_size(title, size, bold=True)[0] > width:
        title = title.partition(":")[0]
    return style.shortened(title, size, width, bold=True)


def _draw_scale(
    sheet: np.ndarray,
    x: int,
    y: int,
    width: int,
    height: int,
    size: int,
    titles: list[tuple[int, int, str, style.Color]],
) -> None:
    """The colour scale (in place); its legend is added to `titles`."""
    ramp = np.linspace(0, 255, width).round().astype(np.uint8)[None].repeat(height, axis=0)
    before = "probability 0 "
    offset = style.text_size(before, size)[0]
    colored = cv2.cvtColor(cv2.applyColorMap(ramp, COLORMAP), cv2.COLOR_BGR2RGB)
    room = sheet.shape[1] - (x + offset)
    colored = colored[:, : max(0, room)]
    sheet[y : y + height, x + offset : x + offset + colored.shape[1]] = colored
    titles += [(x, y, before, style.INK), (x + offset + width, y, " 1", style.INK)]
