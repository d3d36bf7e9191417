"""What the two layers saw: in the image, and as heat maps of each region of interest (RoI).

Letters: D detections, M mask side, H x W image, h x w picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from bcnet.maps import BOUNDARY, MASK, UNKNOWN, MapSpec
from bcnet.ops.paste import Window, paste_windows
from bcnet.structures import Detections
from bcnet.visualization import style
from bcnet.visualization.overlay import (
    canvas_for,
    check_image,
    draw_boxes,
    draw_detections,
    draw_labels,
    fill_regions,
    instance_colors,
    label_texts,
    map_regions,
    outline_regions,
)
from bcnet.visualization.relations import order_panel

# Title, explanation beside the image, title over heat maps.
LAYERS = {
    "occluder": ("Occluder layer", "what lies on an instance, in its colour", "on top"),
    "occludee": ("Occludee layer", "the instances and their boundaries", "the instance"),
    "amodal": ("Amodal mask", "the instances with their hidden parts", ""),
}
COLORMAP = cv2.COLORMAP_MAGMA  # rises evenly in brightness: the same order in grey, and for any colour vision
GAP = 12  # pixels of paper between panels


def draw_layers(
    image: np.ndarray,
    detections: Detections,
    *,
    long_side: int | None = None,
    numbered: bool = False,
    scores: bool = True,
    identities: Sequence[int] | None = None,
) -> np.ndarray:
    """Panels side by side: detections, occluder layer, occludee layer, order of depth.

    The occluder panel shows, in the colour of each detection, what the upper layer found on top of it inside its
    box; the occludee panel shows the detection's own mask. Predicted boundaries are the bright bands. Of training
    targets, pixels that are unknown are hatched in grey. The last panel shows who lies on whom. What the detections do
    not carry has no panel.

    Args:
        image: uint8 [H, W, 3], RGB.
        detections: of this image, with the maps of both layers (``with_occluder=True`` in inference).
        long_side: pixels of each panel's longer side; None keeps the image's.
        numbered: labels begin with the detection's position, from 1.
        scores: labels end with the score. Without, these are annotations, and the first panel says so.
        identities: as `draw_detections`.

    Returns:
        np.ndarray: uint8 [h, w, 3], RGB.

    Raises:
        ValueError: as `draw_detections`.
    """
    image, detections = canvas_for(image, detections, long_side)  # once for all panels
    common = {"long_side": None, "numbered": numbered, "identities": identities}
    panels = [draw_detections(image, detections, scores=scores, **common)]
    found = "none" if len(detections) == 0 else "masks, classes and scores" if scores else "masks and classes"
    titles = [("Detections" if scores else "Annotations", found)]
    for layer, (title, explanation, _) in LAYERS.items():
        if (spec := detections.find(layer, MASK)) is not None:
            panels.append(_layer_panel(image, detections, layer, **common))
            threshold = detections.mask_threshold
            is_empty = not (detections.maps[spec.name] >= threshold).any()
            titles.append((title, f"empty: no probability reaches {threshold:g}" if is_empty else explanation))
    if detections.occluded_by is not None and detections.occludee_mask is not None:
        regions = list(map_regions(detections, "occludee_mask"))
        panels.append(order_panel(_faded(image), detections, regions, instance_colors(detections, identities)))
        is_empty = not detections.occlusion.edges
        titles.append(("Order", "nobody hides anybody" if is_empty else "0 is in front; arrows: who hides whom"))
    return join_panels(panels, titles)


def _layer_panel(
    image: np.ndarray,
    detections: Detections,
    layer: str,
    long_side: int | None,
    numbered: bool,
    identities: Sequence[int] | None,
) -> np.ndarray:
    canvas, detections = canvas_for(image, detections, long_side)
    canvas = _faded(canvas)
    width = style.line_width(canvas.shape[:2])
    masks = list(map_regions(detections, detections.find(layer, MASK).name))
    unknown_map = detections.find(layer, UNKNOWN)
    unknown = [_hatched(r, width) for r in map_regions(detections, unknown_map.name)] if unknown_map else []
    # An instance with nothing on top of it has no place in the occluder panel.
    kept = [i for i, (_, mask) in enumerate(masks) if mask.any()]
    masks = [masks[i] for i in kept]
    all_colors = instance_colors(detections, identities)
    colors = [all_colors[i] for i in kept]
    all_texts = label_texts(detections, numbered, scores=False)
    texts = [all_texts[i] for i in kept]
    detections = detections[kept]
    if layer == "occluder":
        # Several instances may have one occluder: stripes let all their colours be seen.
        fill_regions(
            canvas, [_striped(region, i, 3 * width) for i, region in zip(kept, masks, strict=True)], colors, 0.8
        )
        texts = [f"over {text}" for text in texts]
    else:
        fill_regions(canvas, masks, colors, 0.6)
    outline_regions(canvas, masks, colors, width)
    fill_regions(canvas, unknown, [style.UNKNOWN] * len(unknown), 0.8)
    if (boundary := detections.find(layer, BOUNDARY)) is not None:
        _glow(canvas, detections, boundary.name, colors)
    draw_boxes(canvas, detections, colors)
    return draw_labels(canvas, detections, colors, texts)


def _glow(canvas: np.ndarray, detections: Detections, name: str, colors: Sequence[style.Color]) -> None:
    """Brightens the canvas by a map's probability (in place): boundaries are two pixels of the RoI frame wide."""
    maps = paste_windows(detections.maps[name], detections.boxes, detections.image_size)
    for (window, values), color in zip(maps, colors, strict=True):
        area = canvas[window.y0 : window.y1, window.x0 : window.x1]
        opacity = (0.75 * values.clamp(0, 1) ** 2).numpy()[..., None]
        bright = np.asarray(style.mixed(color, style.WHITE, 0.5), dtype=np.float32)
        area[:] = np.round((1 - opacity) * area + opacity * bright)


def _striped(region: tuple[Window, np.ndarray], index: int, width: int) -> tuple[Window, np.ndarray]:
    """The region's pixels that lie on diagonal stripes; the place of the stripes goes by the instance's position."""
    window, mask = region
    rows, columns = np.ogrid[window.y0 : window.y1, window.x0 : window.x1]
    return window, mask & ((rows + columns + index * width) // width % 3 == 0)


def _hatched(region: tuple[Window, np.ndarray], width: int) -> tuple[Window, np.ndarray]:
    """The region's pixels that lie on thin diagonal lines, the same lines for all regions."""
    window, mask = region
    rows, columns = np.ogrid[window.y0 : window.y1, window.x0 : window.x1]
    return window, mask & ((columns - rows) // width % 4 == 0)


def _faded(image: np.ndarray) -> np.ndarray:
    """The image in dark grey, so that colours mean instances."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return (grey * 0.5).astype(np.uint8) + 20


def join_panels(panels: Sequence[np.ndarray], titles: Sequence[tuple[str, str]]) -> np.ndarray:
    """Pictures of one height side by side on white, each under its title and a line that explains it."""
    size = max(style.font_size(panels[0].shape[:2]), 13)
    line = style.text_size("X", size)[1]
    head = 2 * line + GAP
    sheet = np.full(
        (panels[0].shape[0] + head, sum(panel.shape[1] for panel in panels) + GAP * (len(panels) - 1), 3),
        style.PAPER,
        dtype=np.uint8,
    )
    x, bold, plain = 0, [], []
    for panel, (title, explanation) in zip(panels, titles, strict=True):
        sheet[head:, x : x + panel.shape[1]] = panel
        bold.append((x, GAP // 2, style.shortened(title, size, panel.shape[1], bold=True), style.INK))
        plain.append((x, GAP // 2 + line, style.shortened(explanation, size, panel.shape[1]), style.INK))
        x += panel.shape[1] + GAP
    return style.draw_texts(style.draw_texts(sheet, bold, size, bold=True), plain, size)


def draw_heat_maps(
    image: np.ndarray,
    detections: Detections,
    *,
    cell: int = 140,
    rows: int = 8,
    columns: int | None = None,
    scores: bool = True,
) -> list[np.ndarray]:
    """The sheets that explain each detection: its RoI as the mask head sees it, and the four maps of both layers.

    One line per detection: a picture of the box stretched to a square, then occluder boundary, occluder
    mask, occludee boundary and occludee mask as M x M squares, all on one colour scale from 0 to 1. Maps that
    the detections do not carry are left out.

    Args:
        image: uint8 [H, W, 3], RGB.
        detections: of this image.
        cell: pixels of a square.
        rows: detections below each other on a sheet.
        columns: detections beside each other; by default 1, and 2 where more than `rows` detections come.
        scores: names end with the score.

    Returns:
        list: sheets, uint8 [h, w, 3] RGB, with the detections in their order; none without detections.

    Raises:
        ValueError: as `draw_detections`.
    """
    check_image(image, detections)
    detections = detections.to("cpu")
    columns = columns or (1 if len(detections) <= rows else 2)
    texts = label_texts(detections, numbered=True, scores=scores)
    lines = [_heat_map_line(image, detections, index, text, cell) for index, text in enumerate(texts)]
    sheets = []
    for start in range(0, len(lines), rows * columns):
        page = lines[start : start + rows * columns]
        used_rows = math.ceil(len(page) / columns)
        blocks = [page[i : i + used_rows] for i in range(0, len(page), used_rows)]
        sheets.append(_heat_map_sheet(blocks, detections, cell))
    return sheets


def _columns(detections: Detections) -> list[MapSpec]:
    """The maps in the order of the columns, as in the paper's figures: the occluder layer and boundaries first."""
    return [spec for spec in reversed(detections.present) if spec.kind != UNKNOWN]


def _heat_map_line(image: np.ndarray, detections: Detections, index: int, text: str, cell: int) -> np.ndarray:
    """Name plate above the RoI crop and its maps."""
    color = style.instance_color(index)
    size = max(11, cell // 10)
    plate_height = style.text_size("X", size)[1] + 4
    cells = [_roi_crop(image, detections.boxes[index].tolist(), cell)]
    for spec in _columns(detections):
        values = (detections.maps[spec.name][index].numpy().clip(0, 1) * 255).round().astype(np.uint8)
        heat = cv2.cvtColor(cv2.applyColorMap(values, COLORMAP), cv2.COLOR_BGR2RGB)
        heat = style.resized(heat, cell, cell, smooth=False)
        if (unknown := detections.find(spec.layer, UNKNOWN)) is not None:
            area = detections.maps[unknown.name][index].numpy()
            _hatch(heat, style.resized(np.uint8(area > 0.5), cell, cell, smooth=False).astype(bool))
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
        bold.append((left, GAP // 2, style.shortened("Region (RoI)", size, cell, bold=True), style.INK))
        plain.append((left, GAP // 2 + text_height, style.shortened("as a square", size, cell), style.INK))
        layer = None
        for position, spec in enumerate(_columns(detections), start=1):
            x = left + position * (cell + gap)
            if spec.layer != layer:
                layer = spec.layer
                title, _, meaning = LAYERS.get(layer, (f"{layer} layer", "", ""))
                bold.append((x, GAP // 2, f"{title}: {meaning}" if meaning else title, style.INK))
            plain.append((x, GAP // 2 + text_height, spec.title or spec.kind, style.INK))
        for row, line in enumerate(block):
            y = head + row * (line_height + GAP)
            sheet[y : y + line_height, left : left + line_width] = line
    _draw_scale(sheet, margin, height - foot + GAP // 2, cell * 2, text_height, size, plain)
    return style.draw_texts(style.draw_texts(sheet, plain, size), bold, size, bold=True)


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
