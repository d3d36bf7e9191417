"""Colours, fonts and line widths that all pictures share."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from bcnet.visualization import fonts

Color = tuple[int, int, int]

# Okabe and Ito's palette, which readers with any colour vision can tell apart (without its black); neighbours
# in this order differ in brightness too.
OKABE_ITO: tuple[Color, ...] = (
    (213, 94, 0),  # vermillion
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (230, 159, 0),  # orange
    (0, 114, 178),  # blue
)
WHITE, BLACK, INK, PAPER = (255, 255, 255), (0, 0, 0), (34, 34, 34), (255, 255, 255)
SMALLEST_FONT = 13  # pixels
UNKNOWN = (170, 170, 170)  # lines over pixels of training targets that are unknown


def instance_color(index: int) -> Color:
    """RGB of the instance at a position; the palette, then lighter, then darker, then again from the start."""
    color = OKABE_ITO[index % len(OKABE_ITO)]
    return (color, mixed(color, WHITE, 0.45), mixed(color, BLACK, 0.4))[index // len(OKABE_ITO) % 3]


def mixed(color: Color, other: Color, share: float) -> Color:
    """`color` with a share 0..1 of `other`."""
    red, green, blue = (round((1 - share) * a + share * b) for a, b in zip(color, other, strict=True))
    return red, green, blue


def readable_on(color: Color) -> Color:
    """Black or white, whichever has the better contrast on a background (WCAG's relative luminance)."""
    linear = [(v / 255 / 12.92) if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else WHITE


def line_width(image_size: tuple[int, int]) -> int:
    """Pixels, for an image of (H, W)."""
    return max(1, round(max(image_size) / 500))


def font_size(image_size: tuple[int, int]) -> int:
    """Pixels, for an image of (H, W); never below what can be read."""
    return max(SMALLEST_FONT, round(max(image_size) / 42))


def text_size(text: str, size: int, bold: bool = False) -> tuple[int, int]:
    """Width of a text, and the height of its line, which is the same for every text of a size."""
    ascent, descent = fonts.sized(fonts.main_font(bold), size).getmetrics()
    return int(np.ceil(sum(font.getlength(part) for font, part in fonts.runs(text, size, bold)))), ascent + descent


def shortened(text: str, size: int, width: int, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits into a width, with an ellipsis."""
    while len(text) > 1 and text_size(text, size, bold)[0] > width:
        text = text[:-2].rstrip() + "…"
    return text


def wrapped(text: str, size: int, width: int, bold: bool = False) -> list[str]:
    """The text in lines that fit into a width; a word that is too long for a line is shortened."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_size(f"{lines[-1]} {word}", size, bold)[0] <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(shortened(word, size, width, bold))
    return lines


def striped(rows: np.ndarray, columns: np.ndarray, *, period: int, width: int, rising: bool = True) -> np.ndarray:
    """Which pixels lie on diagonal stripes of a width, one in every `period` pixels along a row: bool.

    Args:
        rows, columns: of the pixels, as `np.ogrid` gives them.
        rising: from the lower left to the upper right.
    """
    return ((rows + columns) if rising else (columns - rows)) % period < width


def draw_texts(
    canvas: np.ndarray, texts: list[tuple[int, int, str, Color]], size: int, bold: bool = False
) -> np.ndarray:
    """Texts at the top left corner (x, y) of their lines, in the given colours: a new uint8 [H, W, 3] image."""
    if not texts:
        return canvas
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for x, y, text, color in texts:
        left, baseline = float(x), y + fonts.sized(fonts.main_font(bold), size).getmetrics()[0]
        for font, part in fonts.runs(text, size, bold):
            draw.text((left, baseline), part, fill=color, font=font, anchor="ls")
            left += font.getlength(part)
    return np.asarray(picture).copy()


def resized(image: np.ndarray, width: int, height: int, smooth: bool = True) -> np.ndarray:
    """The image at another size."""
    if image.shape[:2] == (height, width):
        return image.copy()
    shrinks = height * width < image.shape[0] * image.shape[1]
    interpolation = (cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC) if smooth else cv2.INTER_NEAREST
    return cv2.resize(image, (width, height), interpolation=interpolation)
