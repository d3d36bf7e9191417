"""A small COCO data set with every kind of annotation, written to a folder."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 60, 80
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "cup"}, {"id": 40, "name": "dog"}]


def rectangle(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def rle(x, y, w, h, compressed):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    if compressed:
        return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode("ascii")}
    runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=2)), prepend=0)
    return {"size": [HEIGHT, WIDTH], "counts": runs.tolist()}


def annotations(image_id):
    """Overlapping rectangles as polygon, compressed and uncompressed RLE, a crowd, and one far away."""
    boxes = [(5, 5, 30, 30), (20, 15, 30, 32), (30, 8, 25, 25), (4, 4, 60, 50), (62, 40, 15, 15)]
    segmentations = [
        rectangle(*boxes[0]),
        rle(*boxes[1], compressed=True),
        rle(*boxes[2], compressed=False),
        rle(*boxes[3], compressed=False),
        rectangle(*boxes[4]),
    ]
    return [
        {
            "id": 10 * image_id + i,
            "image_id": image_id,
            "category_id": (3, 7, 40, 7, 3)[i],
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": int(i == 3),
            "segmentation": segmentation,
        }
        for i, (box, segmentation) in enumerate(zip(boxes, segmentations, strict=True))
    ]


def write_coco(folder, *, images=2, polygons_only=False, change=None):
    """Writes the json and its images; returns the spec of the data set."""
    root = folder / "images"
    root.mkdir(parents=True, exist_ok=True)
    content = {"images": [], "annotations": [], "categories": CATEGORIES}
    random = np.random.RandomState(0)
    for image_id in range(1, images + 1):
        pixels = random.randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{image_id}.png")
        content["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": HEIGHT, "width": WIDTH})
        found = annotations(image_id)
        if polygons_only:
            found = [a for a in found if isinstance(a["segmentation"], list) or not a["iscrowd"]]
            for annotation in found:
                annotation["segmentation"] = rectangle(*annotation["bbox"])
        if change:
            change(found)
        content["annotations"] += found
    (folder / "annotations.json").write_text(json.dumps(content))
    return f"coco:{folder / 'annotations.json'}:{root}"
