"""Fonts for the characters of class names, and names with line breaks."""

from __future__ import annotations

import os

import matplotlib
import numpy as np
import pytest

from bcnet.visualization import fonts, style


@pytest.fixture
def stix(monkeypatch):
    """A font that is not installed, named by the environment."""
    path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "STIXGeneral.ttf")
    monkeypatch.setenv(fonts.FONT_VARIABLE, path)
    fonts._other_font.cache_clear()
    yield path
    fonts._other_font.cache_clear()


def test_a_text_of_latin_letters_takes_one_font():
    ((font, part),) = fonts.runs("Größe #1 98%", 20)
    assert part == "Größe #1 98%" and font.path == fonts.main_font()
    assert style.text_size(part, 20)[0] == int(np.ceil(font.getlength(part)))


def test_characters_that_it_lacks_take_a_font_that_has_them(stix):
    parts = [(os.path.basename(font.path), part) for font, part in fonts.runs("a \u2329b", 20)]
    assert parts == [("DejaVuSans.ttf", "a "), ("STIXGeneral.ttf", "\u2329"), ("DejaVuSans.ttf", "b")]
    blank = np.zeros((40, 60, 3), np.uint8)
    drawn = style.draw_texts(blank, [(4, 4, "\u2329", (255, 255, 255))], 20)
    expected = style.draw_texts(blank, [(4, 4, "\uffff", (255, 255, 255))], 20)
    assert drawn.any() and not np.array_equal(drawn, expected)  # the empty box


def test_characters_without_a_font_are_said_once_for_each_script(monkeypatch, caplog):
    monkeypatch.setattr(fonts, "_fonts_by_character", lambda given: {})
    fonts._other_font.cache_clear()
    fonts._warn_of_script.cache_clear()
    for _ in range(2):
        assert "".join(part for _, part in fonts.runs("\u732b\u72ac cup", 20)) == "\u732b\u72ac cup"
    fonts._other_font.cache_clear()
    assert len(caplog.records) == 1 and "CJK characters" in caplog.text and "BCNET_FONT" in caplog.text


def test_a_file_that_is_no_font_is_named(tmp_path, monkeypatch):
    path = tmp_path / "font.ttf"
    path.write_text("no font")
    monkeypatch.setenv(fonts.FONT_VARIABLE, str(path))
    fonts._other_font.cache_clear()
    with pytest.raises(ValueError, match=r"BCNET_FONT is '.*font\.ttf', which is not a font file"):
        fonts.runs("\u732b", 20)


def test_line_breaks_are_escaped():
    assert fonts.on_one_line("big\ncup\t1\u200d") == "big\\ncup\\t1\u200d"
    ((_, part),) = fonts.runs("big\ncup", 20)
    assert part == "big\\ncup"
