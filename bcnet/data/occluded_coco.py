"""Reader of Occluded COCO and Separated COCO (Zhan et al., "A Tri-Layer Plugin to Improve Occluded Detection", 2022).

Both are automatically selected lists of objects of COCO val2017: partly hidden objects in one piece, and objects that
an occluder splits into several pieces. They are suitable only for measuring recall, because most objects of their
images are not listed.

An entry is [file name, class name, number, box, RLE]. Boxes are xywh in one list and xyxy in the other, so they are
not read: boxes are computed from the masks. The file is a pickle, as downloaded, or the same list as json; a json in
COCO's own format is also accepted. Pickles are read without executing code.
"""

from __future__ import annotations

import os

from bcnet.data.coco import read_annotations
from bcnet.data.coco_classes import COCO_CLASSES
from bcnet.data.coco_json import mask_box, read_coco_json, short
from bcnet.data.findings import Findings
from bcnet.data.reader import AnnotationFormat
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json


def load_occluded_coco(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads a list of objects of COCO val2017 (see the module docstring).

    Returns:
        The images that have a listed object, with only the listed objects; image ids are those of COCO, taken from the
        file name. The classes are COCO's 80.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: malformed content; names the file, and the positions and values of the first faults.
    """
    entries = read_json(annotation_file) if annotation_file.endswith(".json") else _read_pickle(annotation_file)
    if isinstance(entries, dict):
        return read_annotations(read_coco_json(annotation_file), annotation_file, image_root, name)
    if not isinstance(entries, (list, tuple)) or not entries:
        raise ValueError(f"{annotation_file} must hold a list of objects, got {short(entries)}")
    findings = Findings(annotation_file)
    category_ids = {class_name: category_id for category_id, class_name in COCO_CLASSES.items()}
    images: dict[str, dict] = {}
    annotations = []
    for position, entry in enumerate(entries):
        try:
            file_name, class_name, rle = _checked_entry(entry)
            height, width = rle["size"]
            image = images.setdefault(
                file_name, {"id": _image_id(file_name), "file_name": file_name, "height": height, "width": width}
            )
            annotation = {"id": position, "image_id": image["id"], "segmentation": rle}
            annotation["category_id"] = category_ids.get(class_name, class_name)
            record = ImageRecord(file_name, image["id"], height, width)
            annotations.append({**annotation, "bbox": mask_box(rle, record)})
        except ValueError as error:
            findings.fault(f"entry {position}", error)
    findings.raise_if_faulty()
    content = {
        "images": list(images.values()),
        "categories": [{"id": category_id, "name": class_name} for category_id, class_name in COCO_CLASSES.items()],
        "annotations": annotations,
    }
    return read_annotations(content, annotation_file, image_root, name, format=AnnotationFormat(has_area=False))


def _checked_entry(entry: object) -> tuple[str, str, dict]:
    if not isinstance(entry, (list, tuple)) or len(entry) != 5:
        raise ValueError(f"it must be [file name, class name, number, box, RLE], got {short(entry)}")
    file_name, class_name, _, _, rle = entry
    if not isinstance(file_name, str) or not isinstance(class_name, str):
        raise ValueError(f"file name and class name must be strings, got {short(file_name)} and {short(class_name)}")
    size = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(type(side) is int for side in size):
        raise ValueError(f"its mask must be an RLE with its size, got {short(rle)}")
    return file_name, class_name, {**rle, "size": list(size)}


def _image_id(file_name: str) -> int | str:
    stem = os.path.splitext(os.path.basename(file_name))[0]
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) < 20 else stem


def _read_pickle(path: str) -> object:
    # Imported here, so that reading other formats does not need the checkpoint package.
    from bcnet.checkpoint.unpickle import load_numpy_pickle

    with open(path, "rb") as file:
        try:
            return load_numpy_pickle(file)
        except Exception as error:  # a damaged file may raise anything
            raise ValueError(f"{path} is not a pickle of plain lists and numbers: {error}") from error
