"""The script behind the pictures of docs/concepts.md still makes them."""

import runpy
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[2]


def test_every_picture_of_the_page_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["figures.py", "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / "docs" / "figures.py"), run_name="__main__")
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made
    for name in made:
        assert f"images/{name}" in pages
        # Fonts and codecs differ between machines by a few pixels; the layout does not.
        committed = cv2.imread(str(ROOT / "docs" / "images" / name))
        assert cv2.imread(str(tmp_path / name)).shape == committed.shape
