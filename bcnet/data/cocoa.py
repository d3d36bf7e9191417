"""Reader of COCOA (amodal COCO: Zhu et al., CVPR 2017), COCOA-cls and D2SA (Follmann et al., WACV 2019).

Two kinds of files are read, distinguished by their content:

- COCOA's own: one annotation per image with a list of ``regions``. Accepted are the merged file of the download
  (``images`` and ``annotations``), and annotations of single images: one json, a json with a list of them, or
  a folder of jsons. COCOA has free-text names and no categories: all objects get the single class "object".
- COCOA-cls and D2SA: COCO's format with one annotation per object and an additional ``visible_mask``.

==================  ==================================================================================
mask or box         source
==================  ==================================================================================
amodal              ``segmentation``: one flat polygon, polygons, or an RLE
visible             ``visible_mask``; if absent, nothing is hidden and it equals the amodal mask
boxes               computed from the masks; files differ in which mask ``bbox`` belongs to
==================  ==================================================================================

``isStuff`` regions are kept as crowds: neither trained on, evaluated nor occluders, and not part of the depth order. If
an image has several annotations, by different annotators, only the first is read, as in the data set's own evaluation.

Depth order: ``depth_constraint`` of an image, "1-2,1-5", means that region 1 (position in ``regions``, counted from 1)
lies in front of regions 2 and 5; it lists the regions that overlap. Without it, the ``order`` of the regions is used, a
total depth order, smaller in front: in five images that were checked, ``invisible_mask`` is exactly the part of the
amodal mask that regions of smaller order cover. COCOA-cls and D2SA have ``order`` in ``amodal_region``. An order that
is incomplete, ambiguous or inconsistent is ignored and counted.

Malformed content is handled as in the table of `bcnet.data.coco`, with the exceptions of `amodal_annotation`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any

from bcnet.data.amodal import amodal_annotation, as_polygons
from bcnet.data.coco import read_annotations
from bcnet.data.coco_json import image_label, is_id, is_size, missing, read_flag, read_number, short
from bcnet.data.findings import Findings
from bcnet.data.images import open_image
from bcnet.data.order import Pairs, pairs_in_front
from bcnet.data.reader import AnnotationFormat
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json

CLASS_NAME = "object"
_IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")


def load_cocoa(annotation_file: str, image_root: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads COCOA, COCOA-cls or D2SA (see the module docstring).

    Args:
        annotation_file: path of the json, or of a folder with one json per image.
        image_root: folder that image file names are relative to.
        name: name of the data set; default: the file's path.

    Returns:
        The images in ascending order of id, and the data set's description.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: malformed content; names the file, and the ids and values of the first faults.
    """
    if os.path.isdir(annotation_file):
        paths = sorted(glob.glob(os.path.join(glob.escape(annotation_file), "*.json")))
        if not paths:
            raise ValueError(f"the folder {annotation_file} has no json files")
        content: Any = [(path, read_json(path)) for path in paths]
    else:
        content = read_json(annotation_file)
        if isinstance(content, dict) and "regions" in content:
            content = [content]
        if isinstance(content, list):
            content = [(annotation_file, entry) for entry in content]
    if isinstance(content, list):
        content = _merged(content, image_root)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise ValueError(f"{annotation_file} is not a COCOA file: it has neither a list of images nor regions")
    annotations = content.get("annotations")
    if isinstance(annotations, list) and any(isinstance(entry, dict) and "regions" in entry for entry in annotations):
        findings = Findings(annotation_file)
        content = {
            "images": images,
            "categories": [{"id": 1, "name": CLASS_NAME}],
            "annotations": list(_regions(annotations, findings)),
        }
        return read_annotations(content, annotation_file, image_root, name, format=_COCOA, findings=findings)
    if not isinstance(content.get("categories"), list) or not content["categories"]:
        raise ValueError(f"{annotation_file} is not a COCOA file: it has neither regions nor categories")
    return read_annotations(content, annotation_file, image_root, name, format=_COCOA_CLS)


def _merged(entries: Sequence[tuple[str, Any]], image_root: str) -> dict:
    """Content in the form of the merged file, from annotations of single images with the paths of their jsons."""
    content: dict = {"images": [], "annotations": []}
    for position, (path, entry) in enumerate(entries):
        fault = missing(entry, ("image_id", "regions"))
        if fault is not None:
            raise ValueError(f"{path} is not a COCOA annotation of an image: {fault}")
        file_name = _image_file(path, entry, image_root)
        height, width = _image_size(path, entry, os.path.join(image_root, file_name))
        content["images"].append({"id": entry["image_id"], "file_name": file_name, "height": height, "width": width})
        content["annotations"].append({"id": position + 1, **entry})
    return content


def _image_file(path: str, entry: dict, image_root: str) -> str:
    """The first existing image file among the entry's names and the json's name with an image suffix."""
    stem = os.path.splitext(os.path.basename(path))[0]
    names = [os.path.basename(entry[key]) for key in ("file_name", "url") if isinstance(entry.get(key), str)]
    names = [name for name in names if name] + [stem + suffix for suffix in _IMAGE_SUFFIXES]
    return next((name for name in names if _is_file(os.path.join(image_root, name))), names[0])


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # an invalid file name
        return False


def _image_size(path: str, entry: dict, image_file: str) -> tuple[int, int]:
    """(height, width) from the entry or one of its RLEs, or else from the image file."""
    sizes = [[entry.get("height"), entry.get("width")]]
    for region in entry["regions"] if isinstance(entry["regions"], list) else []:
        masks = [region.get("visible_mask"), region.get("segmentation")] if isinstance(region, dict) else []
        sizes += [mask.get("size") for mask in masks if isinstance(mask, dict)]
    for size in sizes:
        if isinstance(size, list) and len(size) == 2 and is_size(size[0]) and is_size(size[1]):
            return int(size[0]), int(size[1])
    try:
        image = open_image(image_file)
    except ValueError as error:
        raise ValueError(f"{path}: the size of its image is unknown: {error}") from error
    return image.height, image.width


def _regions(annotations: Sequence[object], findings: Findings) -> Iterator[object]:
    """One annotation per region, with its position from 1 and the values of the image's entry."""
    seen = set()
    for position, entry in enumerate(annotations):
        if not isinstance(entry, dict) or not is_id(entry.get("image_id")):
            yield entry
            continue
        if entry["image_id"] in seen:
            label = f"image {short(entry['image_id'])}"
            findings.drop("further annotations of an image, dropped", label)
            continue
        seen.add(entry["image_id"])
        regions = entry.get("regions")
        regions = regions if isinstance(regions, list) else [regions]
        for place, region in enumerate(regions, start=1):
            yield {
                "id": f"{entry.get('id', position + 1)} region {place}",
                "image_id": entry["image_id"],
                "region": region,
                "place": place,
                "last_place": len(regions),
                "depth_constraint": entry.get("depth_constraint"),
            }


def _translate_region(annotation: dict, record: ImageRecord, findings: Findings) -> dict | None:
    region = annotation.get("region")
    if not isinstance(region, dict):
        raise ValueError(f"a region must be an object with a segmentation, got {short(region)}")
    read_number("order", region.get("order"))
    iscrowd = read_flag("isStuff", region.get("isStuff"))
    return _translate({"id": annotation["id"], "category_id": 1, "iscrowd": iscrowd}, region, record, findings)


def _translate_object(annotation: dict, record: ImageRecord, findings: Findings) -> dict | None:
    region = _amodal_region(annotation)
    read_number("order", _object_depth(annotation))
    flags = [("iscrowd", annotation), ("isStuff", annotation), ("isStuff", region)]
    iscrowd = any([read_flag(key, source.get(key)) for key, source in flags])  # noqa: C419 (every value is checked)
    return _translate({**annotation, "iscrowd": iscrowd}, annotation, record, findings)


def _translate(annotation: dict, masks: dict, record: ImageRecord, findings: Findings) -> dict | None:
    amodal = as_polygons(masks.get("segmentation"))
    visible = amodal if masks.get("visible_mask") is None else as_polygons(masks["visible_mask"])
    return amodal_annotation(annotation, record, findings, visible=visible, amodal=amodal)


def _amodal_region(annotation: dict) -> dict:
    region = annotation.get("amodal_region")
    return region if isinstance(region, dict) else {}


def _object_depth(annotation: dict) -> Any:
    order = annotation.get("order")
    return _amodal_region(annotation).get("order") if order is None else order


def _object_order(record: ImageRecord, annotations: Sequence[dict], findings: Findings) -> Pairs | None:
    return _total_order(record, [_object_depth(annotation) for annotation in annotations], findings)


def _region_order(record: ImageRecord, annotations: Sequence[dict], findings: Findings) -> Pairs | None:
    constraint = annotations[0]["depth_constraint"] if annotations else None
    if constraint is not None:
        pairs = _constraint_pairs(constraint)
        if _is_consistent(pairs, annotations):
            indices = {annotation["place"]: index for index, annotation in enumerate(annotations)}
            return [(indices[back], indices[front]) for front, back in pairs if front in indices and back in indices]
        what = "images whose depth_constraint does not fit their regions, ordered by 'order' instead"
        findings.note(what, image_label(record))
    return _total_order(record, [annotation["region"].get("order") for annotation in annotations], findings)


def _constraint_pairs(constraint: object) -> list[tuple[int, int]]:
    """Parses "1-2,1-5" into unique pairs (front, back) of positions from 1.

    Raises:
        ValueError: it has another form.
    """
    pairs = [pair.split("-") for pair in constraint.split(",")] if isinstance(constraint, str) and constraint else []
    if not isinstance(constraint, str) or not all(len(pair) == 2 and all(map(_is_number, pair)) for pair in pairs):
        raise ValueError(f"depth_constraint must be a string like '1-2,1-5', got {short(constraint)}")
    return list(dict.fromkeys((int(front), int(back)) for front, back in pairs))


def _is_number(text: str) -> bool:
    return text.strip().isdecimal() and len(text) < 10


def _is_consistent(pairs: Sequence[tuple[int, int]], annotations: Sequence[dict]) -> bool:
    """Whether all positions exist, every partly hidden region has another in front, and no pair contradicts another
    pair or an ``order``."""
    orders = {annotation["place"]: annotation["region"].get("order") for annotation in annotations}
    behind = {back for _, back in pairs}
    if any(a["region"].get("visible_mask") is not None and a["place"] not in behind for a in annotations):
        return False
    last_place = annotations[0]["last_place"]
    reversed_pairs = {(back, front) for front, back in pairs}
    for front, back in pairs:
        if (front, back) in reversed_pairs or not (1 <= front <= last_place and 1 <= back <= last_place):
            return False
        known = orders.get(front) is not None and orders.get(back) is not None
        if known and orders[front] >= orders[back]:
            return False
    return True


def _total_order(record: ImageRecord, orders: Sequence[float | None], findings: Findings) -> Pairs | None:
    known = [
        order
        for order, instance in zip(orders, record.instances, strict=True)
        if order is not None and not instance.iscrowd
    ]
    if len(set(known)) < len(known):
        what = "images in which objects have equal order, depth order ignored"
        findings.note(what, image_label(record))
        return None
    return pairs_in_front(record, orders, findings, "an order")


_COCOA = AnnotationFormat(translate=_translate_region, order=_region_order, has_area=False, has_stuff=True)
_COCOA_CLS = AnnotationFormat(translate=_translate_object, order=_object_order, has_area=False, has_stuff=True)
