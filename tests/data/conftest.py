from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def coco_files(tmp_path):
    """Function that writes images of sizes {id: (height, width)} and a COCO json of annotations; returns the paths."""

    def write(sizes, annotations=(), name="annotations.json", **changes):
        root = tmp_path / "images"
        root.mkdir(exist_ok=True)
        images = []
        for image_id, (height, width) in sizes.items():
            file_name = f"{image_id}.png"
            if not (root / file_name).exists():
                pixels = np.random.default_rng(image_id).integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / file_name)
            images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "cup"}, {"id": 3, "name": "cat"}],
            **changes,
        }
        content = {key: value for key, value in content.items() if value is not None}
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name), str(root)

    return write
