"""Folders with a COCO json and its images, as CVAT, Roboflow and others export them: which json, which images.

============  ============================================  ============================
exported by   json                                          images
============  ============================================  ============================
Roboflow      ``train/_annotations.coco.json``              beside the json
CVAT          ``annotations/instances_default.json``        ``images``, ``images/default``
COCO itself   ``annotations/instances_train2017.json``      ``train2017``
============  ============================================  ============================

The json is the one of the folder, or else of its folder ``annotations``, that has lists of images and categories; there
must be one alone. The images are searched beside the json, in the folder, and in its subfolders: the place that has
most of the files counts. A path of Windows, or of another machine, is found by its folders or by its name alone,
where no other image has that name.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence

from bcnet.data.coco import load_coco
from bcnet.data.coco_json import short
from bcnet.data.importers.content import files_below, relative_name
from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.files import read_json

_SUBFOLDERS = 2  # levels that are searched for images

Load = Callable[[str, str, str], tuple[list[ImageRecord], DatasetInfo]]


def of_file_or_folder(load: Load) -> Callable[..., tuple[list[ImageRecord], DatasetInfo]]:
    """A COCO reader that finds the json in a folder, and the images where no folder is given."""

    @functools.wraps(load)
    def load_file_or_folder(path: str, image_root: str | None = None, name: str = ""):
        annotation_file = find_json(path) if os.path.isdir(path) else path
        if image_root is None:
            image_root = find_images(annotation_file, path if os.path.isdir(path) else os.path.dirname(path))
        records, info = load(annotation_file, image_root, name)
        _find_moved(records, image_root)
        return records, info

    return load_file_or_folder


def _find_moved(records: Sequence[ImageRecord], image_root: str) -> None:
    """Sets the paths of images whose names in the json are those of another machine, where they can be found."""
    names = [os.path.relpath(record.file_name, image_root or ".") for record in records]
    if not any("\\" in name for name in names) and (not records or os.path.isfile(records[0].file_name)):
        return
    shared = Counter(_base(name) for name in names)
    for record, name in zip(records, names, strict=True):
        if not os.path.isfile(record.file_name):
            found = _find(name, image_root, shared[_base(name)] == 1)
            record.file_name = os.path.join(image_root, found) if found else record.file_name


def _base(name: str) -> str:
    return os.path.basename(name.replace("\\", "/"))


def _find(name: str, folder: str, by_base: bool) -> str | None:
    """A file of a folder by its name in a json: as it is, with slashes, or by the last part."""
    names = [name, name.replace("\\", "/"), *([_base(name)] if by_base else [])]
    return next((name for name in names if os.path.isfile(os.path.join(folder, name))), None)


load_coco_folder = of_file_or_folder(load_coco)


def find_json(folder: str) -> str:
    """The COCO json of a folder.

    Raises:
        ValueError: there is none, or several; lists them.
    """
    for parent in (folder, os.path.join(folder, "annotations")):
        names = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
        paths = [os.path.join(parent, name) for name in names if name.lower().endswith(".json")]
        found = [path for path in paths if _is_coco(path)] if len(paths) > 1 else paths
        if len(found) > 1:
            raise ValueError(f"the folder {folder} has several COCO files, name one of them: {', '.join(found)}")
        if found:
            return found[0]
    below = [path for path in files_below(folder, (".json",)) if _is_coco(path)]
    hint = f"; name one of these, or its folder: {', '.join(below)}" if below else ""
    raise ValueError(f"the folder {folder} has no COCO json, nor has its folder annotations{hint}")


def _is_coco(path: str) -> bool:
    try:
        content = read_json(path)
    except ValueError:
        return False
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "categories" in content


def find_images(annotation_file: str, folder: str) -> str:
    """The folder that the file names of a COCO json start at.

    Raises:
        ValueError: no folder has a single one of the files; names the first one and the folders.
    """
    content = read_json(annotation_file)
    images = content.get("images") if isinstance(content, dict) else None
    entries = [entry.get("file_name") for entry in images or [] if isinstance(entry, dict)]
    names = [name for name in entries if isinstance(name, str)]
    beside = os.path.dirname(annotation_file) or "."
    folders = list(dict.fromkeys([beside, folder or ".", *_below(folder or ".", _SUBFOLDERS)]))
    shared = Counter(map(_base, names))
    counts = {
        place: sum(_find(name, place, shared[_base(name)] == 1) is not None for name in names) for place in folders
    }
    best = max(folders, key=lambda place: counts[place])
    if names and not counts[best]:
        places = ", ".join(relative_name(place, folder or ".") for place in folders)
        raise ValueError(
            f"{annotation_file}: none of its {len(names)} images, such as {short(names[0])}, is in one of the folders "
            f"{short(places)} of {folder!r}; name the folder: coco:{annotation_file}:path/to/images"
        )
    return best


def _below(folder: str, levels: int) -> list[str]:
    if not levels:
        return []
    folders = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    return [*folders, *(below for parent in folders for below in _below(parent, levels - 1))]
