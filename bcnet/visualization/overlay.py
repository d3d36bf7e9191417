"""Detections drawn into their image.

Letters: D detections, H x W image, h x w canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from bcnet.ops.paste import Window, paste_windows
from bcnet.structures import Detections
from bcnet.visualization import style
from bcnet.visualization.labels import place_labels
from bcnet.visualization.relations import draw_arrows


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
    identities: Sequence[int] | None = None,
) -> np.ndarray:
    """The image with masks, their outlines, boxes, class names and scores.

    An instance's colour depends on its position alone, so it is the same in all pictures of the detections; or on its
    identity, where that is known (`bcnet.visualization.video`).
    Labels never cover each other: the one with the lower score gives way, and is left out where there is no place.

    Args:
        image: uint8 [H, W, 3], RGB.
        detections: of this image (`Detections.rescaled` fits them to it).
        long_side: pixels of the picture's longer side; None keeps the image's. Small images need a larger
            canvas for labels to be legible.
        opacity: of the masks, 0..1.
        boxes, labels: whether they are drawn.
        numbered: labels begin with the detection's position, from 1.
        scores: labels end with the score.
        relations: arrows from each occluder to what it hides, for detections with relations and masks.
        identities: a number of each detection that stands for its colour; None takes the positions.

    Returns:
        np.ndarray: uint8 [h, w, 3], RGB, a new array.

    Raises:
        ValueError: the image is not uint8 [H, W, 3], or the detections are of another image size; arrows are asked for
            and the detections have no relations.
    """
    canvas, detections = canvas_for(image, detections, long_side)
    colors = instance_colors(detections, identities)
    if detections.occludee_mask is not None:
        regions = list(map_regions(detections, "occludee_mask"))
        fill_regions(canvas, regions, colors, opacity)
        outline_regions(canvas, regions, colors, style.line_width(canvas.shape[:2]))
    if boxes:
        draw_boxes(canvas, detections, colors)
    if relations and detections.occludee_mask is not None:
        draw_arrows(canvas, detections, regions, colors)
    if labels:
        canvas = draw_labels(canvas, detections, colors, label_texts(detections, numbered, scores))
    return canvas


def instance_colors(detections: Detections, identities: Sequence[int] | None = None) -> list[style.Color]:
    """The colour of each detection, by its identity or its position."""
    return [style.instance_color(i) for i in (range(len(detections)) if identities is None else identities)]


def check_image(image: np.ndarray, detections: Detections) -> None:
    """Raises ValueError if the image is not uint8 [H, W, 3] of the detections' size."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image must be uint8 [H, W, 3], got {image.dtype} {image.shape}")
    if image.shape[:2] != tuple(detections.image_size):
        raise ValueError(
            f"the image has (height, width) {image.shape[:2]}, the detections are for {tuple(detections.image_size)}; "
            "use Detections.rescaled"
        )


def canvas_for(image: np.ndarray, detections: Detections, long_side: int | None) -> tuple[np.ndarray, Detections]:
    """A copy of the image whose longer side is `long_side`, and the detections in its pixels (on the CPU).

    No detection is dropped, so that positions stay what they are.
    """
    check_image(image, detections)
    height, width = image.shape[:2]
    scale = 1.0 if long_side is None else long_side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    canvas = style.resized(image, size[1], size[0])
    detections = detections.to("cpu")
    factors = detections.boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    return canvas, Detections(
        **{
            **vars(detections),
            "image_size": size,
            "boxes": detections.boxes * factors,
        }
    )


def map_regions(detections: Detections, name: str) -> Iterator[tuple[Window, np.ndarray]]:
    """One map of each detection where it reaches its threshold: its window in the image and bool [h, w] there."""
    for window, values in paste_windows(detections.maps[name], detections.boxes, detections.image_size):
        yield window, (values >= detections.mask_threshold).numpy()


def fill_regions(
    canvas: np.ndarray, regions: Sequence[tuple[Window, np.ndarray]], colors: Sequence[style.Color], opacity: float
) -> None:
    """Tints the regions, the largest first, so that small ones stay visible (in place)."""
    order = sorted(range(len(regions)), key=lambda i: -int(regions[i][1].sum()))
    for index in order:
        window, mask = regions[index]
        area = canvas[window.y0 : window.y1, window.x0 : window.x1]
        tinted = (1 - opacity) * area[mask] + opacity * np.asarray(colors[index], dtype=np.float32)
        area[mask] = np.round(tinted).astype(np.uint8)


def outline_regions(
    canvas: np.ndarray, regions: Sequence[tuple[Window, np.ndarray]], colors: Sequence[style.Color], width: int
) -> None:
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
    """Class name and score of each detection, such as "person 98%"; without names, "class 0 98%"."""
    texts = []
    names = detections.class_names
    for index, (label, score) in enumerate(zip(detections.classes.tolist(), detections.scores.tolist(), strict=True)):
        words = [f"#{index + 1}"] if numbered else []
        words.append(names[label] if names else f"class {label}")
        words += [f"{100 * score:.0f}%"] if scores else []
        texts.append(" ".join(words))
    return texts


def draw_labels(
    canvas: np.ndarray, detections: Detections, colors: Sequence[style.Color], texts: Sequence[str]
) -> np.ndarray:
    """Labels on plates of the instances' colours, placed by `place_labels`: a new image."""
    size = style.font_size(canvas.shape[:2])
    margin = max(2, size // 5)
    sizes = []
    for text in texts:
        width, height = style.text_size(text, size)
        sizes.append((width + 2 * margin, height + 2))
    rectangles = place_labels(detections.boxes.tolist(), sizes, canvas.shape[:2])
    written = []
    for rectangle, color, text in zip(rectangles, colors, texts, strict=True):
        if rectangle is not None:
            x0, y0, x1, y1 = rectangle
            canvas[y0:y1, x0:x1] = color
            written.append((x0 + margin, y0 + 1, text, style.readable_on(color)))
    return style.draw_texts(canvas, written, size)
