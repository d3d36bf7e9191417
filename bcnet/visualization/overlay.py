"""Drawing of detections into their image: masks, hidden parts, boxes, labels and arrows of the occlusion relations.

Letters: D detections, H x W image, h x w canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from bcnet.maps import OCCLUDEE_AMODAL
from bcnet.ops.paste import Window, paste_windows
from bcnet.structures import Detections
from bcnet.visualization import style
from bcnet.visualization.duplicates import near_identical
from bcnet.visualization.hidden_tracks import draw_hidden_boxes, hidden_labels
from bcnet.visualization.labels import place_labels
from bcnet.visualization.relations import draw_arrows

CROWDED = 8  # more labels than these are smaller

Region = tuple[Window, np.ndarray]  # a window in the canvas, and bool [h, w] there


@dataclass
class Scene:
    """What is drawn: an image at the size of the picture, and the detections in its pixels.

    Attributes:
        canvas: uint8 [h, w, 3], RGB.
        detections: on the CPU; of near-identical ones the first.
        colors: of each.
        names: what its label says: number and class, of all near-identical ones.
        labels: the same with scores.
        numbers: of each, such as "#1" (`instance_numbers`).
        numbered: whether labels begin with the number, which is then also what they say where there is no place for
            more.
        merged: number of detections that are not drawn, because a near-identical one is.
    """

    canvas: np.ndarray
    detections: Detections
    colors: list[style.Color]
    names: list[str]
    labels: list[str]
    numbers: list[str]
    numbered: bool
    merged: int = 0


def scene_of(
    image: np.ndarray, detections: Detections, *, long_side: int | None, numbered: bool, scores: bool
) -> Scene:
    """The image and its detections at the size of the picture, near-identical ones together.

    Args: as `draw_detections`.
    """
    colors = instance_colors(detections)
    names = label_texts(detections, numbered, scores=False)
    labels = label_texts(detections, numbered, scores)
    canvas, detections = canvas_for(image, detections, long_side)
    groups, numbers = near_identical(detections), instance_numbers(detections)
    firsts = [group[0] for group in groups]
    return Scene(
        canvas,
        detections[firsts],
        [colors[first] for first in firsts],
        [" = ".join(names[index] for index in group) for group in groups],
        [" = ".join(labels[index] for index in group) for group in groups],
        [numbers[first] for first in firsts],
        numbered or detections.track_ids is not None,
        len(detections) - len(groups),
    )


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    *,
    long_side: int | None = None,
    opacity: float = 0.45,
    boxes: bool = True,
    labels: bool = True,
    numbered: bool = False,
    scores: bool = True,
    relations: bool = False,
) -> np.ndarray:
    """The image with masks, their outlines, boxes, class names and scores. `Detections.plot` is a shortcut.

    Visible parts are filled; the hidden parts of detections with amodal masks are hatched. An instance's colour depends
    on its position alone, so it is the same in all pictures of the detections; or on its track, where instances are
    tracked. Near-identical detections, such as one object found as two classes, are drawn once, with both labels.
    Tracks that are hidden in the frame (`Detections.hidden_tracks`) have a dashed box where they are expected.
    Labels never cover each other: the one with the lower score gives way, and is left out where there is no place.

    Args:
        image: uint8 [H, W, 3], RGB.
        detections: of this image (`Detections.rescaled` fits them to it).
        long_side: pixels of the picture's longer side; None keeps the image's. Small images need a larger
            canvas for labels to be legible.
        opacity: of the masks, 0..1.
        boxes, labels: whether they are drawn.
        numbered: labels begin with the detection's position, from 1; those of tracked instances always with their
            track's, from 1 too.
        scores: labels end with the score.
        relations: arrows from each occluder to its occludee, for detections with relations and masks.

    Returns:
        np.ndarray: uint8 [h, w, 3], RGB, a new array.

    Raises:
        ValueError: the image is not uint8 [H, W, 3], or the detections are of another image size, or of this image in
            RGB order and it is BGR; arrows are requested and the detections have no relations.
    """
    scene = scene_of(image, detections, long_side=long_side, numbered=numbered, scores=scores)
    return draw_scene(scene, opacity=opacity, boxes=boxes, labels=labels, relations=relations)


def draw_scene(
    scene: Scene, *, opacity: float = 0.45, boxes: bool = True, labels: bool = True, relations: bool = False
) -> np.ndarray:
    """`draw_detections` of a scene."""
    canvas, detections, colors = scene.canvas.copy(), scene.detections, scene.colors
    width = style.line_width(canvas.shape[:2])
    if detections.occludee_mask is not None:
        regions = list(map_regions(detections, "occludee_mask"))
        fill_regions(canvas, regions, colors, opacity)
        outline_regions(canvas, regions, colors, width)
        if detections.has_hidden_parts:
            hatch_regions(canvas, hidden_regions(detections), colors)
    if boxes:
        draw_boxes(canvas, detections, colors)
        draw_hidden_boxes(canvas, detections.hidden_tracks)
    if relations and detections.occludee_mask is not None:
        draw_arrows(canvas, detections, regions, colors)
    return draw_labels(canvas, scene, scene.labels) if labels else canvas


def instance_colors(detections: Detections) -> list[style.Color]:
    """The colour of each detection, by its track or its position."""
    tracks = detections.track_ids
    return [style.instance_color(i) for i in (range(len(detections)) if tracks is None else tracks.tolist())]


def instance_numbers(detections: Detections) -> list[str]:
    """How pictures call each detection: "#1" is position 0 or, of tracked instances, track 0."""
    tracks = detections.track_ids
    return [f"#{i + 1}" for i in (range(len(detections)) if tracks is None else tracks.tolist())]


def check_image(image: np.ndarray, detections: Detections) -> None:
    """Raises ValueError if the image is not uint8 [H, W, 3] of the detections' size, or is theirs in BGR order."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image must be uint8 [H, W, 3], got {image.dtype} {image.shape}")
    if image.shape[:2] != tuple(detections.image_size):
        raise ValueError(
            f"the image has (height, width) {image.shape[:2]}, the detections are for {tuple(detections.image_size)}; "
            "use Detections.rescaled"
        )
    if detections.source is not None and detections.source.is_swapped(image):
        raise ValueError(
            "the image is in BGR order, as OpenCV reads it, and pictures are drawn in RGB: give image[:, :, ::-1], or "
            "let detections.plot() draw into the image that was predicted"
        )


def canvas_for(image: np.ndarray, detections: Detections, long_side: int | None) -> tuple[np.ndarray, Detections]:
    """A copy of the image whose longer side is `long_side`, and the detections in its pixels (on the CPU).

    No detection is dropped, so that positions stay what they are.
    """
    check_image(image, detections)
    height, width = image.shape[:2]
    size = picture_size((height, width), long_side)
    canvas = style.resized(image, size[1], size[0])
    detections = detections.to("cpu")
    factors = detections.boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    hidden = tuple(track.rescaled(size[1] / width, size[0] / height) for track in detections.hidden_tracks)
    boxes = detections.boxes * factors
    return canvas, replace(detections, image_size=size, boxes=boxes, hidden_tracks=hidden, source=None)


def picture_size(image_size: tuple[int, int], long_side: int | None) -> tuple[int, int]:
    """(h, w) of the picture of an image of (H, W) whose longer side is `long_side`; None keeps the image's size."""
    height, width = image_size
    scale = 1.0 if long_side is None else long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def map_regions(detections: Detections, name: str) -> Iterator[Region]:
    """One map of each detection where it reaches its threshold: its window in the image and bool [h, w] there."""
    for window, values in paste_windows(detections.maps[name], detections.map_boxes, detections.image_size):
        yield window, (values >= detections.mask_threshold).numpy()


def hidden_regions(detections: Detections) -> list[Region]:
    """The hidden part of each detection, amodal and not visible."""
    visible = map_regions(detections, "occludee_mask")
    whole = map_regions(detections, OCCLUDEE_AMODAL.name)
    return [(window, mask & ~seen) for (window, mask), (_, seen) in zip(whole, visible, strict=True)]


def fill_regions(canvas: np.ndarray, regions: Sequence[Region], colors: Sequence[style.Color], opacity: float) -> None:
    """Tints the regions, the largest first, so that small ones stay visible (in place)."""
    order = sorted(range(len(regions)), key=lambda i: -int(regions[i][1].sum()))
    for index in order:
        window, mask = regions[index]
        area = canvas[window.y0 : window.y1, window.x0 : window.x1]
        tinted = (1 - opacity) * area[mask] + opacity * np.asarray(colors[index], dtype=np.float32)
        area[mask] = np.round(tinted).astype(np.uint8)


def hatch_regions(canvas: np.ndarray, regions: Sequence[Region], colors: Sequence[style.Color]) -> None:
    """Marks hidden parts (in place): diagonal lines in the instance's colour, and its outline.

    The lines of instances are shifted against each other, so that hidden parts that overlap can be told apart.
    """
    width = style.line_width(canvas.shape[:2])
    lines = []
    for index, (window, mask) in enumerate(regions):
        rows, columns = np.ogrid[window.y0 : window.y1, window.x0 : window.x1]
        on_lines = style.striped(rows, columns + 2 * width * index, period=6 * width, width=2 * width)
        lines.append((window, mask & on_lines))
    fill_regions(canvas, lines, colors, 0.9)
    outline_regions(canvas, regions, colors, max(1, width // 2))


def outline_regions(canvas: np.ndarray, regions: Sequence[Region], colors: Sequence[style.Color], width: int) -> None:
    """Draws the outlines of regions (in place)."""
    for (window, mask), color in zip(regions, colors, strict=True):
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(window.x0, window.y0)
        )
        cv2.drawContours(canvas, contours, -1, color, width, cv2.LINE_AA)


def draw_boxes(canvas: np.ndarray, detections: Detections, colors: Sequence[style.Color]) -> None:
    """Draws the boxes (in place), half as wide as outlines."""
    width = max(1, style.line_width(canvas.shape[:2]) // 2)
    for (x0, y0, x1, y1), color in zip(detections.boxes.tolist(), colors, strict=True):
        cv2.rectangle(canvas, (round(x0), round(y0)), (round(x1) - 1, round(y1) - 1), color, width)


def label_texts(detections: Detections, numbered: bool = False, scores: bool = True) -> list[str]:
    """Class name and score of each detection, such as "person 98%"; without names, "class 0 98%".

    Numbered and tracked instances have their number in front, "#1 person 98%".
    """
    texts, numbered = [], numbered or detections.track_ids is not None
    numbers = instance_numbers(detections)
    for number, name, score in zip(numbers, detections.names, detections.scores.tolist(), strict=True):
        words = [number] if numbered else []
        words.append(name)
        words += [f"{100 * score:.0f}%"] if scores else []
        texts.append(" ".join(words))
    return texts


def draw_labels(canvas: np.ndarray, scene: Scene, texts: Sequence[str]) -> np.ndarray:
    """Labels on plates of the instances' colours, placed by `place_labels`: a new image.

    A text that is wider than the canvas is shortened; one without a place is replaced by the detection's number.
    """
    size = style.font_size(canvas.shape[:2])
    if len(texts) > CROWDED:
        size = max(style.SMALLEST_FONT, round(0.75 * size))
    margin = max(2, size // 5)
    hidden = scene.detections.hidden_tracks
    texts = [*texts, *hidden_labels(hidden)]
    texts = [style.shortened(text, size, canvas.shape[1] - 2 * margin) for text in texts]
    plates = [_plate(text, size, margin) for text in texts]
    boxes = [*scene.detections.boxes.tolist(), *(track.box for track in hidden)]
    colors = [*scene.colors, *(style.instance_color(track.track_id) for track in hidden)]
    rectangles = place_labels(boxes, plates, canvas.shape[:2])
    replaceable = len(scene.numbers) if scene.numbered else 0
    without = [index for index, rectangle in enumerate(rectangles) if rectangle is None and index < replaceable]
    if without:
        plates = [_plate(scene.numbers[index], size, margin) for index in without]
        taken = [rectangle for rectangle in rectangles if rectangle is not None]
        found = place_labels([boxes[index] for index in without], plates, canvas.shape[:2], taken=taken)
        for index, rectangle in zip(without, found, strict=True):
            rectangles[index], texts[index] = rectangle, scene.numbers[index]
    written = []
    for rectangle, color, text in zip(rectangles, colors, texts, strict=True):
        if rectangle is not None:
            x0, y0, x1, y1 = rectangle
            canvas[y0:y1, x0:x1] = color
            written.append((x0 + margin, y0 + 1, text, style.readable_on(color)))
    return style.draw_texts(canvas, written, size)


def _plate(text: str, size: int, margin: int) -> tuple[int, int]:
    width, height = style.text_size(text, size)
    return width + 2 * margin, height + 2
