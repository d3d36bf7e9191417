"""Sheets of what the mask head sees: detections, occluder layer, occludee layer, amodal masks and depth order.

Letters: D detections, M mask side, H x W image, h x w picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bcnet.maps import BOUNDARY, MASK, OCCLUDEE, OCCLUDEE_AMODAL, UNKNOWN, MapSpec
from bcnet.ops.paste import paste_windows
from bcnet.structures import Detections
from bcnet.visualization import style
from bcnet.visualization.overlay import (
    Region,
    Scene,
    draw_boxes,
    draw_labels,
    draw_scene,
    fill_regions,
    hatch_regions,
    hidden_regions,
    map_regions,
    outline_regions,
    scene_of,
)
from bcnet.visualization.relations import MAX_ARROWS, depth_colors, order_panel
from bcnet.visualization.sheet import Panel, sheet
from bcnet.words import counted

MIN_SHARE = 0.01  # of the pixels of a RoI: less of a layer's mask is not drawn
# Title and explanation of the panel of a layer.
LAYERS = {
    "occluder": ("Occluder layer", "striped in an object's colour: what covers it inside its box"),
    "occludee": ("Occludee layer", "the objects and, bright, their boundaries"),
    "amodal": ("Amodal mask", "the whole objects, hidden parts included"),
}


def draw_layers(
    image: np.ndarray,
    detections: Detections,
    *,
    long_side: int | None = None,
    numbered: bool = True,
    scores: bool = True,
    columns: int = 2,
    keep_places: bool = False,
) -> np.ndarray:
    """Panels two by two, or three in a row: detections, occluder layer, occludee layer or amodal masks, depth order.

    The occluder panel shows the occluder mask predicted inside the box of each detection, in that detection's colour;
    the occludee panel shows the detection's own mask. Predicted boundaries are the bright bands. Detections with amodal
    masks have a panel of whole instances instead: the visible part filled, the hidden part hatched. Unknown pixels of
    training targets are hatched in grey. The last panel shows the occlusion relations and the depth order, with a
    legend of its colours. Maps that are absent have no panel, and a layer in which nothing was found has a sentence
    instead. Near-identical detections are drawn once, as in `draw_detections`.

    Args:
        image: uint8 [H, W, 3], RGB.
        detections: of this image, with the maps of both layers (``with_occluder=True`` in inference).
        long_side: pixels of each panel's longer side; None keeps the image's.
        numbered: labels begin with the detection's position, from 1, as the discs of the depth order have it.
        scores: labels end with the score. Without, these are annotations, and the first panel says so.
        columns: panels beside each other, where there are more than three.
        keep_places: panels of which only a sentence is left keep their places, as in the frames of a video.

    Returns:
        np.ndarray: uint8 [h, w, 3], RGB.

    Raises:
        ValueError: as `draw_detections`.
    """
    panels = layer_panels(image, detections, long_side=long_side, numbered=numbered, scores=scores)
    return sheet(list(panels.values()), columns=columns, keep_places=keep_places)


def layer_panels(
    image: np.ndarray,
    detections: Detections,
    *,
    long_side: int | None = None,
    numbered: bool = True,
    scores: bool = True,
) -> dict[str, Panel]:
    """The panels of `draw_layers`, each under its name, in their order.

    The names are "detections", those of layers ("occluder", "occludee", "amodal"), and "order". A panel of which only a
    sentence is left has no picture.

    Args, raises: as `draw_layers`.
    """
    scene = scene_of(image, detections, long_side=long_side, numbered=numbered, scores=scores)  # once for all panels
    panels = {"detections": _first_panel(scene, scores)}
    # Visible parts are filled in the amodal panel: with it, four panels say everything.
    layers = [layer for layer in LAYERS if not (layer == OCCLUDEE and scene.detections.has_hidden_parts)]
    for layer in layers:
        if (spec := scene.detections.find(layer, MASK)) is not None:
            panels[layer] = _layer_panel(scene, spec)
    if scene.detections.has_hidden_parts:
        panels["amodal"] = _amodal_panel(scene)
    if scene.detections.occluded_by is not None and scene.detections.occludee_mask is not None:
        panels["order"] = _order_panel(scene)
    return panels


def _first_panel(scene: Scene, scores: bool) -> Panel:
    explanation = counted(len(scene.detections), "object")
    if len(scene.detections):
        drawn = "boxes" if scene.detections.occludee_mask is None else "masks"
        explanation += f": {drawn}, classes and scores" if scores else f": {drawn} and classes"
    if scene.merged:
        explanation += f"; {counted(scene.merged, 'near-identical one')} drawn with another (=)"
    return Panel(draw_scene(scene), "Detections" if scores else "Annotations", explanation)


def _layer_panel(scene: Scene, spec: MapSpec) -> Panel:
    title, explanation = LAYERS[spec.layer]
    detections, canvas = scene.detections, _faded(scene.canvas)
    width = style.line_width(canvas.shape[:2])
    masks = list(map_regions(detections, spec.name))
    unknown_map = detections.find(spec.layer, UNKNOWN)
    unknown = [_crossed(region, width) for region in map_regions(detections, unknown_map.name)] if unknown_map else []
    # An instance without an occluder is left out of the occluder panel; so are a few stray pixels.
    shares = (detections.maps[spec.name] >= detections.mask_threshold).float().mean(dim=(1, 2)).tolist()
    kept = [i for i, (_, mask) in enumerate(masks) if mask.any() and shares[i] >= MIN_SHARE]
    if not kept and not any(mask.any() for _, mask in unknown):
        return Panel(None, title, _nothing_in(detections, spec))
    masks = [masks[i] for i in kept]
    colors = [scene.colors[i] for i in kept]
    texts = [scene.names[i] for i in kept]
    if spec.layer == "occluder":
        # Several instances may share an occluder: stripes keep all their colours visible.
        stripes = [_striped(region, i, 3 * width) for i, region in zip(kept, masks, strict=True)]
        fill_regions(canvas, stripes, colors, 0.8)
        texts = [f"covers {text}" for text in texts]
    else:
        fill_regions(canvas, masks, colors, 0.6)
    outline_regions(canvas, masks, colors, width)
    fill_regions(canvas, unknown, [style.UNKNOWN] * len(unknown), 0.8)
    if (boundary := detections.find(spec.layer, BOUNDARY)) is not None:
        _glow(canvas, detections[kept], boundary.name, colors)
    draw_boxes(canvas, detections[kept], colors)
    numbers = [scene.numbers[i] for i in kept]
    shown = Scene(canvas, detections[kept], colors, texts, texts, numbers, scene.numbered)
    if unknown:
        explanation += "; grey: not known"
    return Panel(draw_labels(canvas, shown, texts), title, explanation)


def _nothing_in(detections: Detections, spec: MapSpec) -> str:
    """Why a layer has no pixel to show."""
    if not len(detections):
        return "empty: there is no object"
    highest = float(detections.maps[spec.name].max())
    what = "nothing covers an object" if spec.layer == "occluder" else "no object has a mask"
    if spec.layer == "occluder" and detections.occluded_by is not None and detections.occlusion.order.kept:
        sources = "hidden parts too" if detections.has_hidden_parts else "so few pixels too"
        return f"empty: no occluder mask fills {MIN_SHARE:.0%} of a box. The depth order comes from {sources}"
    if highest == 0:  # of targets; a model's probabilities are above 0
        return f"empty: {what}"
    if highest >= detections.mask_threshold:
        return f"empty: {what}, but for less than {MIN_SHARE:.0%} of a box"
    return f"empty: {what}. No probability reaches {detections.mask_threshold:g}; the highest is {highest:.2f}"


def _amodal_panel(scene: Scene) -> Panel:
    """Visible parts filled, hidden parts hatched, amodal outlines; labels end with the hidden share."""
    title, explanation = "Amodal masks", "the whole objects: visible parts filled, hidden parts hatched"
    detections = scene.detections
    if not len(detections):
        return Panel(None, title, "empty: there is no object")
    canvas = _faded(scene.canvas)
    fill_regions(canvas, list(map_regions(detections, "occludee_mask")), scene.colors, 0.6)
    # Hidden parts lie on other instances' visible parts.
    hatch_regions(canvas, hidden_regions(detections), scene.colors)
    whole = list(map_regions(detections, OCCLUDEE_AMODAL.name))
    outline_regions(canvas, whole, scene.colors, style.line_width(canvas.shape[:2]))
    shares = detections.occluded_fraction.tolist()
    texts = [f"{text}, {100 * share:.0f}% hidden" for text, share in zip(scene.names, shares, strict=True)]
    return Panel(draw_labels(canvas, scene, texts), title, explanation)


def _order_panel(scene: Scene) -> Panel:
    title, detections = "Depth order", scene.detections
    order = detections.occlusion.order
    if not order.kept:
        undecided = len(order.contradicted) > 0
        reason = "the pairs that touch are undecided" if undecided else "no object is in front of another"
        return Panel(None, title, f"empty: {reason if len(detections) else 'there is no object'}")
    regions = list(map_regions(detections, "occludee_mask"))
    explanation = "arrows lead from an occluder to what it covers; faint ones are uncertain"
    if len(order.kept) > MAX_ARROWS:
        explanation += f"; the {MAX_ARROWS} most certain of {len(order.kept)} are drawn"
    colors = depth_colors(int(order.depth.max(initial=0)))
    words = [str(depth) for depth in range(len(colors))]
    words[0], words[-1] = "0 in front", f"{words[-1]} behind"
    picture = order_panel(_faded(scene.canvas), detections, regions, scene.colors, scene.numbers)
    return Panel(picture, title, explanation, list(zip(colors, words, strict=True)))


def _glow(canvas: np.ndarray, detections: Detections, name: str, colors: Sequence[style.Color]) -> None:
    """Brightens the canvas by a map's probability (in place): boundaries are two pixels of the RoI frame wide."""
    maps = paste_windows(detections.maps[name], detections.map_boxes, detections.image_size)
    for (window, values), color in zip(maps, colors, strict=True):
        area = canvas[window.y0 : window.y1, window.x0 : window.x1]
        opacity = (0.75 * values.clamp(0, 1) ** 2).numpy()[..., None]
        bright = np.asarray(style.mixed(color, style.WHITE, 0.5), dtype=np.float32)
        area[:] = np.round((1 - opacity) * area + opacity * bright)


def _striped(region: Region, index: int, width: int) -> Region:
    """The region's pixels that lie on broad stripes; the place of the stripes goes by the instance's position."""
    window, mask = region
    rows, columns = np.ogrid[window.y0 : window.y1, window.x0 : window.x1]
    return window, mask & style.striped(rows, columns + index * width, period=3 * width, width=width)


def _crossed(region: Region, width: int) -> Region:
    """The region's pixels that lie on thin lines of the other direction, the same lines for all regions."""
    window, mask = region
    rows, columns = np.ogrid[window.y0 : window.y1, window.x0 : window.x1]
    return window, mask & style.striped(rows, columns, period=4 * width, width=width, rising=False)


def _faded(image: np.ndarray) -> np.ndarray:
    """The image in dark grey, so that colours mean instances."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return (grey * 0.5).astype(np.uint8) + 20
