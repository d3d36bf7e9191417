"""Two images with three objects, and results for them with masks of every form."""

from __future__ import annotations

import json

import numpy as np
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 40, 50
BOXES = {1: [(2, 3, 20, 20), (15, 10, 18, 25)], 2: [(5, 5, 30, 12)]}  # xywh by image


def polygon(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def runs(x, y, w, h):
    """An uncompressed RLE."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[y : y + h, x : x + w] = 1
    pixels = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(pixels)) + 1
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, pixels.size]).tolist()}


def compressed(x, y, w, h):
    rle = coco_mask.frPyObjects(runs(x, y, w, h), HEIGHT, WIDTH)
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


def ground_truth(categories=("cup", "fork")):
    annotations = [
        {
            "id": 10 * image_id + k,
            "image_id": image_id,
            "category_id": 7 + k,
            "bbox": list(box),
            "area": box[2] * box[3],
        }
        | {"segmentation": polygon(*box)}
        for image_id, boxes in BOXES.items()
        for k, box in enumerate(boxes)
    ]
    return {
        "images": [{"id": i, "file_name": f"scene/{i}.png", "height": HEIGHT, "width": WIDTH} for i in BOXES],
        "categories": [{"id": 7 + k, "name": name} for k, name in enumerate(categories)],
        "annotations": annotations,
    }


def results(mask=compressed):
    """A detection of every object, the last one 6 pixels too far to the right."""
    entries = []
    for image_id, boxes in BOXES.items():
        for k, (x, y, w, h) in enumerate(boxes):
            box = (x + 6 * (image_id == 2), y, w, h)
            entry = {"image_id": image_id, "category_id": 7 + k, "bbox": list(box), "score": 0.9 - 0.1 * len(entries)}
            entries.append(entry | ({"segmentation": mask(*box)} if mask else {}))
    return entries


def write(tmp_path, entries, truth=None):
    (tmp_path / "gt.json").write_text(json.dumps(truth or ground_truth()))
    (tmp_path / "results.json").write_text(json.dumps(entries))
    return tmp_path / "gt.json", tmp_path / "results.json"
