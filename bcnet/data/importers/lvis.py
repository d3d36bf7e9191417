"""Reader of LVIS (https://www.lvisdataset.org), whose json is COCO's but for the names of the images.

==================================  ====================================================================================
what                                what is read
==================================  ====================================================================================
``coco_url``                        gives the file name where ``file_name`` is absent: ``train2017/000000391895.jpg``,
                                    or without its folder, whichever is in the image folder
``neg_category_ids``,               not read: evaluation is COCO's, for which an image has all objects of all classes;
``not_exhaustive_category_ids``     LVIS itself evaluates each class on a part of the images
==================================  ====================================================================================
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from bcnet.data.coco import read_annotations
from bcnet.data.coco_json import read_coco_json
from bcnet.data.records import DatasetInfo, ImageRecord


def load_lvis(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads LVIS; arguments, result and errors are those of `bcnet.data.coco.load_coco`."""
    content = read_coco_json(annotation_file)
    images = [_with_file_name(image, image_root) for image in content["images"]]
    return read_annotations(content | {"images": images}, annotation_file, image_root, name)


def _with_file_name(image: object, image_root: str) -> object:
    if not isinstance(image, dict) or image.get("file_name") or not isinstance(image.get("coco_url"), str):
        return image
    folder, file = urlsplit(image["coco_url"]).path.split("/")[-2:] if "/" in image["coco_url"] else ("", "")
    in_folder = f"{folder}/{file}"
    alone = os.path.isfile(os.path.join(image_root, file)) or not os.path.isdir(os.path.join(image_root, folder))
    return {**image, "file_name": file if alone else in_folder}
