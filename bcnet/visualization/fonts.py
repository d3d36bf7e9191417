"""Fonts of pictures: DejaVu Sans, and fonts of the machine for characters that it lacks (Chinese, Japanese, Hindi)."""

from __future__ import annotations

import functools
import logging
import os
import unicodedata
from collections.abc import Iterable
from itertools import groupby

import matplotlib
from PIL import ImageFont

logger = logging.getLogger(__name__)

FONT_VARIABLE = "BCNET_FONT"  # environment variable with the path of a font that is tried first
_CONTROLS = ("Cc", "Zl", "Zp")  # Unicode categories of line breaks and other control characters


def main_font(bold: bool = False) -> str:
    """The path of DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic and many symbols."""
    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@functools.lru_cache(maxsize=64)
def sized(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font file at a size in pixels."""
    return ImageFont.truetype(path, size)


def on_one_line(text: str) -> str:
    r"""The text with its control characters escaped, a line break as ``\n``."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _CONTROLS else c for c in str(text)
    )


def runs(text: str, size: int, bold: bool = False) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    """The parts of a line of text, each with a font that has its characters.

    Characters that no font on the machine has are drawn as empty boxes; a warning says so, once for each script.
    """
    main = main_font(bold)
    text, known = on_one_line(text), _main_characters(main)
    paths = [main if ord(c) in known or c.isspace() else _other_font(c) or main for c in text]
    return [
        (sized(path, size), "".join(c for _, c in part))
        for path, part in groupby(zip(paths, text, strict=True), key=lambda pair: pair[0])
    ]


@functools.cache
def _main_characters(path: str) -> frozenset[int]:
    return frozenset(_characters(path))


@functools.cache
def _other_font(character: str) -> str | None:
    """The font of a character that DejaVu Sans lacks: that of BCNET_FONT, else one of the machine; None without one."""
    path = _fonts_by_character(os.environ.get(FONT_VARIABLE, "")).get(ord(character))
    if path is None:
        _warn_of_script(unicodedata.name(character, "unnamed").split()[0])
    return path


@functools.cache
def _warn_of_script(script: str) -> None:
    """Once for each script, such as "DEVANAGARI"."""
    logger.warning(
        "no font on this machine has %s characters, which are drawn as empty boxes: install one, or set the "
        "environment variable %s to the path of a .ttf, .otf or .ttc file that has them",
        script,
        FONT_VARIABLE,
    )


@functools.cache
def _fonts_by_character(given: str) -> dict[int, str]:
    """The first font of each code point: a given file (or ""), then sans-serif ones of regular weight, then others."""
    from matplotlib import font_manager

    def rank(path: str) -> tuple[int, str]:
        name = os.path.basename(path).lower()
        return -sum(word in name for word in ("sans", "regular")), name

    fonts: dict[int, str] = {}
    for path in [*([given] if given else []), *sorted(font_manager.findSystemFonts(), key=rank)]:
        for code in _characters(path, required=path == given):
            fonts.setdefault(code, path)
    return fonts


def _characters(path: str, *, required: bool = False) -> Iterable[int]:
    """The code points that a font file has glyphs of; none where it cannot be drawn with.

    Raises:
        ValueError: it cannot, and is `required`.
    """
    from matplotlib.ft2font import FT2Font

    try:
        sized(path, 16)  # fonts of bitmaps, such as coloured emoji, have no such size
        return FT2Font(path).get_charmap()
    except (OSError, RuntimeError) as error:
        if required:
            raise ValueError(f"{FONT_VARIABLE} is {path!r}, which is not a font file: {error}") from error
        return ()
