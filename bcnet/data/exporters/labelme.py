"""Writer of labelme's json files, one per image."""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from collections.abc import Sequence

from PIL import Image
from pycocotools import mask as coco_mask

from bcnet.data.exporters.losses import count_losses
from bcnet.data.exporters.masks import back_to_front, decoded
from bcnet.data.exporters.names import output_stems
from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord
from bcnet.files import write_json, write_text
from bcnet.ops.rle import segmentation_to_rle

_VERSION = "5.5.0"  # of the format


def write_labelme(records: Sequence[ImageRecord], info: DatasetInfo, output: str) -> dict[str, int]:
    """Writes a folder of json files, and ``labels.txt`` with the classes in their order.

    Polygons stay polygons, the parts of an object share a ``group_id``; an RLE becomes a shape of type "mask", an
    object without a mask a rectangle. Where the order of an image is known, its shapes run from back to front.

    Returns:
        What the format cannot hold, counted.
    """
    lost: Counter[str] = Counter()
    os.makedirs(output, exist_ok=True)
    write_text("".join(f"{name}\n" for name in info.class_names), os.path.join(output, "labels.txt"))
    for record, stem in zip(records, output_stems(records, info.image_root), strict=True):
        path = os.path.join(output, f"{stem}.json")
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": _shapes(record, info, lost),
            "imagePath": os.path.relpath(record.file_name, os.path.dirname(path)).replace(os.sep, "/"),
            "imageData": None,
            "imageHeight": record.height,
            "imageWidth": record.width,
        }
        write_json(path, content)
    return {what: count for what, count in lost.items() if count}


def _shapes(record: ImageRecord, info: DatasetInfo, lost: Counter[str]) -> list[dict]:
    count_losses(record, lost, flags=True, sequence=True)
    order = back_to_front(record) if record.in_front is not None else []
    positions = [*order, *(i for i in range(len(record.instances)) if i not in set(order))]
    shapes = []
    for group, position in enumerate(positions):
        instance = record.instances[position]
        if instance.iscrowd:
            lost["crowds, left out"] += 1
            continue
        if not instance.segmentation and instance.amodal:
            lost["fully hidden objects, left out"] += 1
            continue
        parts = _parts(record, instance, lost)
        common = {
            "label": info.class_names[instance.category],
            "group_id": group if len(parts) > 1 else None,
            "description": "",
            "flags": {} if instance.occluded is None else {"occluded": instance.occluded},
        }
        shapes += [common | part for part in parts]
    return shapes


def _parts(record: ImageRecord, instance: InstanceRecord, lost: Counter[str]) -> list[dict]:
    segmentation = instance.segmentation
    if not segmentation:
        lost["objects without a mask, written as rectangles"] += 1
        x, y, width, height = instance.bbox
        return [{"shape_type": "rectangle", "points": [[x, y], [x + width, y + height]], "mask": None}]
    if isinstance(segmentation, list):
        return [
            {"shape_type": "polygon", "points": [list(p) for p in zip(polygon[::2], polygon[1::2], strict=True)]}
            | {"mask": None}
            for polygon in segmentation
        ]
    rle = segmentation_to_rle(segmentation, record.height, record.width)
    x, y, width, height = (int(value) for value in coco_mask.toBbox(rle))
    if not width or not height:
        lost["masks without pixels, left out"] += 1
        return []
    window = decoded(rle)[y : y + height, x : x + width]
    file = io.BytesIO()
    Image.fromarray(window).save(file, format="PNG")
    mask = base64.b64encode(file.getvalue()).decode("ascii")
    return [{"shape_type": "mask", "points": [[x, y], [x + width - 1, y + height - 1]], "mask": mask}]
