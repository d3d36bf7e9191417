"""Sample files in the formats of the amodal data sets: three overlapping squares with known masks."""

from __future__ import annotations

import json

import numpy as np
from coco_samples import square
from PIL import Image
from pycocotools import mask as coco_mask

from bcnet.ops.rle import rle_to_json, segmentation_to_rle

SIZE = (40, 60)  # height, width

# Three squares in a row, each over the next one: [4, 24), [18, 38), [32, 52) of the columns, rows [10, 30).
SQUARES = [square(4, 10, 20), square(18, 10, 20), square(32, 10, 20)]
BOXES = [[4, 10, 20, 20], [18, 10, 20, 20], [32, 10, 20, 20]]


def pixels(segmentation, size=SIZE):
    """bool [H, W]"""
    return coco_mask.decode(segmentation_to_rle(segmentation, *size)).astype(bool)


def rle(mask):
    """A bool [H, W] mask as an RLE of json values."""
    return rle_to_json(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))


def visible(index):
    """The visible pixels of one of the three squares; the first is the nearest."""
    mask = pixels([SQUARES[index]])
    for nearer in SQUARES[:index]:
        mask &= ~pixels([nearer])
    return mask


def hidden(index):
    return pixels([SQUARES[index]]) & ~visible(index)


def visible_box(index):
    x, y, width, height = BOXES[index]
    return [x, y, width, height] if index == 0 else [x + 6, y, width - 6, height]


def write(folder, content, images=("1.png",), name="annotations.json"):
    """Writes images and a json; returns the paths of the json and of the image folder."""
    root = folder / "images"
    root.mkdir(exist_ok=True)
    for image in images:
        Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(root / image)
    (folder / name).write_text(json.dumps(content))
    return str(folder / name), str(root)


IMAGES = [{"id": 1, "file_name": "1.png", "height": SIZE[0], "width": SIZE[1]}]


def kins_2020(index, **changes):
    x, y, width, height = visible_box(index)
    entry = {
        "id": index + 1,
        "image_id": 1,
        "category_id": 4,
        "iscrowd": 0,
        "a_segm": [SQUARES[index]],
        "a_bbox": BOXES[index],
        "i_segm": [[x, y, x + width, y, x + width, y + height, x, y + height]],
        "i_bbox": visible_box(index),
        "oco_id": 1,
        "ico_id": index + 1,
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not ...}


def kins_2019(index, **changes):
    entry = {
        "id": index + 1,
        "image_id": 1,
        "category_id": 4,
        "segmentation": [SQUARES[index]],
        "bbox": BOXES[index],
        "inmodal_seg": rle(visible(index)),
        "inmodal_bbox": visible_box(index),
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not ...}


def region(index, **changes):
    """One region of COCOA."""
    entry = {"segmentation": SQUARES[index], "name": "box", "isStuff": 0, "occlude_rate": 0.0, "order": index + 1}
    if index:
        entry |= {"visible_mask": rle(visible(index)), "invisible_mask": rle(hidden(index)), "occlude_rate": 0.3}
    return {key: value for key, value in {**entry, **changes}.items() if value is not ...}


def cocoa(regions, images=IMAGES, **changes):
    """COCOA's merged file with one image."""
    entry = {"id": 7, "image_id": 1, "author": "a", "url": "x/1.png", "regions": regions}
    return {"images": images, "annotations": [{**entry, **changes}]}


def d2sa(index, **changes):
    entry = {
        "id": index + 1,
        "image_id": 1,
        "category_id": 9,
        "iscrowd": False,
        "segmentation": rle(pixels([SQUARES[index]])),
        "visible_mask": rle(visible(index)),
        "bbox": BOXES[index],
        "occlude_rate": 0.0,
        "amodal_region": {"name": "tea", "isStuff": 0, "order": index + 1},
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not ...}
