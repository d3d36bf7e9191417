"""The config keys and config files that the pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bcnet.config import find_config, get_cfg

ROOT = Path(__file__).parents[2]
# docs/detectron2.md names keys that detectron2 alone has.
PAGES = [ROOT / "README.md", ROOT / "datasets/README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name != "detectron2.md"]
KEY = re.compile(r"\b(?:MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST)\.[A-Z][A-Z0-9_.]*[A-Z0-9]")
CONFIG = re.compile(r"[\w./-]+/[\w-]+\.yaml")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_config_keys(page):
    known = set(get_cfg().flat_keys())
    sections = {key.rsplit(".", depth)[0] for key in known for depth in range(1, key.count(".") + 1)}
    assert [key for key in KEY.findall(page.read_text()) if key not in known | sections] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_config_files(page):
    for config in CONFIG.findall(page.read_text()):
        find_config(config)
