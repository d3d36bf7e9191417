"""Reader of BOP, the benchmark of 6D object pose (https://github.com/thodan/bop_toolkit, docs/bop_datasets_format.md).

==========================  ============================================================================================
file of a scene             what is read
==========================  ============================================================================================
``scene_gt.json``           the objects of each image, ``obj_id``; poses are not read
``mask/IM_GT.png``          amodal mask of object GT of image IM
``mask_visib/IM_GT.png``    its visible mask
``scene_gt_info.json``      ``visib_fract``; the file may be absent
``rgb``, ``gray``           the images
==========================  ============================================================================================

An object lies in front of another where its visible pixels are hidden pixels of the other. Classes are "obj_000001" and
so on, by ``obj_id``; their ids are these numbers.
"""

from __future__ import annotations

import os
from dataclasses import replace

from bcnet.data.coco_json import is_number_id, missing, read_number, short
from bcnet.data.findings import AnnotationError
from bcnet.data.importers.content import ContentBuilder, relative_name
from bcnet.data.importers.geometry import window_rle
from bcnet.data.importers.hidden_pixels import HIDDEN_PIXELS
from bcnet.data.importers.label_files import read_binary_mask
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json

_IMAGE_FOLDERS = ("rgb", "gray")
_IMAGE_SUFFIXES = (".png", ".jpg", ".tif")


def load_bop(folder: str, name: str = "") -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads a scene, or a folder of scenes (see the module's text).

    Args:
        folder: of a scene, with ``scene_gt.json``, or of a split with a folder for each scene.
        name: what to call the data set; the folder by default.

    Raises:
        ValueError: no scenes, or malformed content; names the file, the object and the value.
    """
    below = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    scenes = [path for path in (folder, *below) if os.path.isfile(os.path.join(path, "scene_gt.json"))]
    if not scenes:
        raise ValueError(f"{folder} is not a scene of BOP, nor has it scenes: there is no scene_gt.json")
    contents = {scene: _read(scene) for scene in scenes}
    entries = [entry for content, _ in contents.values() for objects in content.values() for entry in objects]
    ids = sorted({int(entry["obj_id"]) for entry in entries if _object_fault(entry) is None})
    builder = ContentBuilder(folder, folder, {obj_id: f"obj_{obj_id:06d}" for obj_id in ids})
    for scene, (content, info) in contents.items():
        for image_id, objects in content.items():
            label = relative_name(os.path.join(scene, image_id), folder)
            try:
                _add_image(builder, scene, int(image_id), objects, info.get(image_id) or [])
            except ValueError as error:
                builder.file_fault(f"image {label!r}", error)
    records, description = builder.read(name, format=HIDDEN_PIXELS)
    return records, replace(description, annotated_occlusions=True)


def _read(scene: str) -> tuple[dict[str, list], dict]:
    path = os.path.join(scene, "scene_gt.json")
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(objects, list) for objects in content.values()):
        raise ValueError(f"{path} is not a scene_gt.json: it must have a list of objects for each image")
    if unnumbered := next((key for key in content if not (key.isascii() and key.isdecimal())), None):
        raise ValueError(f"{path}: its keys are the numbers of images, got {short(unnumbered)}")
    info_path = os.path.join(scene, "scene_gt_info.json")
    info = read_json(info_path) if os.path.isfile(info_path) else {}
    if not isinstance(info, dict):
        raise ValueError(f"{info_path} is not a scene_gt_info.json: it must have a list for each image")
    return content, info


def _object_fault(entry: object) -> str | None:
    fault = missing(entry, ("obj_id",))
    if fault is None and isinstance(entry, dict) and not is_number_id(entry["obj_id"]):
        return f"its obj_id must be a whole number, got {short(entry['obj_id'])}"
    return fault


def _add_image(builder: ContentBuilder, scene: str, number: int, objects: list, info: list) -> None:
    stems = (os.path.join(scene, parent, f"{number:06d}") for parent in _IMAGE_FOLDERS)
    candidates = [stem + suffix for stem in stems for suffix in _IMAGE_SUFFIXES]
    path = next(filter(os.path.isfile, candidates), candidates[0])
    image = builder.add_image(relative_name(path, builder.image_root))
    for position, entry in enumerate(objects):
        where = relative_name(os.path.join(scene, f"{number:06d}_{position:06d}"), builder.image_root)
        try:
            if fault := _object_fault(entry):
                raise AnnotationError(fault, "objects without an obj_id")
            visible, amodal = (
                _mask(os.path.join(scene, parent, f"{number:06d}_{position:06d}.png"), image)
                for parent in ("mask_visib", "mask")
            )
            more = info[position] if isinstance(info, list) and position < len(info) else None
            visible_share = more.get("visib_fract") if isinstance(more, dict) else None
            visible_share = read_number("visib_fract", visible_share, 0, 1)
            builder.add(
                where,
                image,
                int(entry["obj_id"]),
                visible,
                amodal_segmentation=amodal,
                hidden_fraction=None if visible_share is None else 1 - visible_share,
            )
        except ValueError as error:
            builder.fault(where, error)


def _mask(path: str, image: ImageRecord) -> dict:
    try:
        mask = read_binary_mask(path)
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}", error.reason) from error
    if mask.shape != (image.height, image.width):
        raise AnnotationError(
            f"{path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {image.width} x {image.height}",
            "masks of another size than the image",
        )
    return dict(window_rle(mask, 0, 0, image.height, image.width))
