from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write(tmp_path):
    """Writes a file below the test's folder, and gives the folder.

    Called with its name and an image's (height, width), an image's pixels, a text or what a json holds.
    """

    def write_file(name, content, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            content = np.zeros((*content, 3), dtype=np.uint8)
        if isinstance(content, np.ndarray):
            Image.fromarray(content).save(path, **options)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return write_file
