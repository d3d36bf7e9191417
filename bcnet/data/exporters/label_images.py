"""Writers of label images, flattened by depth order, and of layered TIFF files with one page for each object."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bcnet.data.exporters.losses import count_losses
from bcnet.data.exporters.masks import decoded, flat_labels
from bcnet.data.exporters.names import output_stems
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.data.source_masks import has_mask, visible_rle
from bcnet.files import atomic_write

_LARGEST_PNG_VALUE = np.iinfo(np.uint16).max


def write_label_images(records: Sequence[ImageRecord], info: DatasetInfo, output: str) -> dict[str, int]:
    """Writes one 16-bit PNG for each image, named after it: 0 is background, 1, 2, ... are the objects in their order.

    A pixel of several objects gets the nearest one; where the order is not known, the smaller one. More than 65,535
    objects give a 32-bit TIFF.

    Returns:
        What the format cannot hold, counted.
    """
    lost: Counter[str] = Counter()
    for record, stem in zip(records, output_stems(records, info.image_root), strict=True):
        labels, count, covered = flat_labels(record)
        _count(record, info, lost)
        lost["pixels of objects that others cover"] += covered
        lost["objects that others cover altogether"] += count - len(np.unique(labels[labels > 0]))
        if labels.max(initial=0) > _LARGEST_PNG_VALUE:
            _save(Image.fromarray(labels.astype(np.int32)), os.path.join(output, f"{stem}.tif"), "TIFF")
        else:
            _save(Image.fromarray(labels.astype(np.uint16)), os.path.join(output, f"{stem}.png"), "PNG")
    return {what: count for what, count in lost.items() if count}


def write_layered_tiff(records: Sequence[ImageRecord], info: DatasetInfo, output: str) -> dict[str, int]:
    """Writes one TIFF for each image, named after it, with a page for each object: 255 on its visible mask, else 0.

    Objects that share pixels stay whole. napari and ImageJ open the file as a stack. An image without objects has one
    empty page.

    Returns:
        What the format cannot hold, counted.
    """
    lost: Counter[str] = Counter()
    for record, stem in zip(records, output_stems(records, info.image_root), strict=True):
        objects = [instance for instance in record.instances if not instance.iscrowd and has_mask(instance)]
        masks = [decoded(visible_rle(record, instance)) for instance in objects]
        masks = masks or [np.zeros((record.height, record.width), dtype=bool)]
        pages = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
        _count(record, info, lost)
        description = f"ImageJ=1.53\nimages={len(pages)}\nslices={len(pages)}\nloop=false\n"
        options = {"save_all": True, "append_images": pages[1:], "compression": "tiff_deflate"}
        _save(pages[0], os.path.join(output, f"{stem}.tif"), "TIFF", description=description, **options)
    return {what: count for what, count in lost.items() if count}


def _count(record: ImageRecord, info: DatasetInfo, lost: Counter[str]) -> None:
    objects = [instance for instance in record.instances if not instance.iscrowd]
    lost["crowds, left out"] += len(record.instances) - len(objects)
    lost["objects without a mask, left out"] += sum(not has_mask(instance) for instance in objects)
    count_losses(record, lost)
    lost["classes of objects"] += len(objects) if info.num_classes > 1 else 0


def _save(image: Image.Image, path: str, format: str, **options) -> None:
    encoded = io.BytesIO()  # Pillow reads back what it wrote of a TIFF of several pages
    image.save(encoded, format=format, **options)
    with atomic_write(path, "wb", sync=False) as file:
        file.write(encoded.getvalue())
