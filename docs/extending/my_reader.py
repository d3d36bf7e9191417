"""A reader: a folder with images, and for each a PNG whose pixels are the objects' numbers, the nearest object highest.

folder/images/NAME.png
folder/masks/NAME.png     uint8: 0 background, 1, 2, ... objects, from the farthest to the nearest
"""

import os

import numpy as np
from PIL import Image
from pycocotools import mask as coco_masks

from bcnet.data.formats import READER_REGISTRY, SpecPart
from bcnet.data.records import DatasetInfo, ImageRecord, InstanceRecord


@READER_REGISTRY.register(name="numbered", parts=[SpecPart("folder", "path/to/folder", folder=True)])
def load_numbered(folder, name=""):
    """Named by ``numbered:path/to/folder``."""
    files = sorted(os.listdir(os.path.join(folder, "masks")))
    records = [_record(folder, file, image_id) for image_id, file in enumerate(files, start=1)]
    info = DatasetInfo(name, ("object",), (1,), annotation_file=folder, image_root=os.path.join(folder, "images"))
    return records, info


def _record(folder, file, image_id):
    numbers = np.asarray(Image.open(os.path.join(folder, "masks", file)))
    height, width = numbers.shape
    record = ImageRecord(os.path.join(folder, "images", file), image_id, height, width, annotation_file=folder)
    for number in np.unique(numbers[numbers > 0]):
        rle = coco_masks.encode(np.asfortranarray(numbers == number, dtype=np.uint8))
        bbox = coco_masks.toBbox(rle).tolist()
        instance = InstanceRecord(bbox, category=0, segmentation=rle, annotation_id=100 * image_id + int(number))
        record.instances.append(instance)
    count = len(record.instances)
    record.in_front = [(i, j) for i in range(count) for j in range(i + 1, count)]  # j lies in front of i
    return record
