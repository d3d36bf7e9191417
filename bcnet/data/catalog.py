"""Names of data sets, and where their files are.

A data set is named in three ways, all of them accepted wherever the config or a tool takes a data set:

- a built-in name such as ``coco_2017_train``, whose files lie under the data root,
- a name that `register_dataset` was called with,
- a spec ``format:path/to/annotations.json:path/to/images``, which needs no registration; the formats are
  "coco", "coco_used" (without the categories that no annotation has), "kins", "cocoa" (COCOA and COCOA-cls), "d2sa"
  and "occluded_coco".

The data root is the environment variable ``BCNET_DATASETS``, else ``DETECTRON2_DATASETS``, else the folder
``datasets`` of the current directory, as detectron2 has it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass

from bcnet.data.coco import load_coco, load_coco_used
from bcnet.data.cocoa import load_cocoa
from bcnet.data.kins import load_kins
from bcnet.data.occluded_coco import load_occluded_coco
from bcnet.data.records import DatasetInfo, ImageRecord

Reader = Callable[..., tuple[list[ImageRecord], DatasetInfo]]

# A reader is called as reader(annotation_file, image_root, name=...).
_READERS: dict[str, Reader] = {
    "coco": load_coco,
    "coco_used": load_coco_used,  # without the categories that no annotation has
    "kins": load_kins,
    "cocoa": load_cocoa,
    "d2sa": load_cocoa,  # the same format as COCOA-cls
    "occluded_coco": load_occluded_coco,
}

# Formats whose annotations may be a folder with one file per image.
_FOLDER_FORMATS = ("cocoa",)

_ROOT_VARIABLES = ("BCNET_DATASETS", "DETECTRON2_DATASETS")


@dataclass(frozen=True)
class DatasetFiles:
    """Files of a data set, in the format named by `format`; `under_root`: paths start at the data root."""

    annotation_file: str
    image_root: str
    format: str = "coco"
    under_root: bool = False


_D2SA, _D2SA_IMAGES = "d2sa/d2s_amodal_annotations_v1/D2S_amodal", "d2sa/d2s_amodal_images_v1/images"

# Annotation file, image folder and format ("coco" where there is none) under the data root, as the downloads unpack.
_BUILTIN: dict[str, tuple[str, ...]] = {
    "coco_2017_train": ("coco/annotations/instances_train2017.json", "coco/train2017"),
    "coco_2017_val": ("coco/annotations/instances_val2017.json", "coco/val2017"),
    "coco_2017_test-dev": ("coco/annotations/image_info_test-dev2017.json", "coco/test2017"),
    # COCO-OCC: the images of val2017 in which two objects' boxes overlap.
    "coco_2017_occ": ("coco/annotations/instances_val2017_occ.json", "coco/val2017"),
    # Some objects of val2017, hidden in part or cut into pieces: for recall alone.
    "coco_2017_occluded": ("coco/annotations/occluded_coco.pkl", "coco/val2017", "occluded_coco"),
    "coco_2017_separated": ("coco/annotations/separated_coco.pkl", "coco/val2017", "occluded_coco"),
    "kins_2019_train": ("kins/instances_train.json", "kins/training/image_2", "kins"),
    "kins_2019_val": ("kins/instances_val.json", "kins/testing/image_2", "kins"),
    "kins_2020_train": ("kins/update_train_2020.json", "kins/training/image_2", "kins"),
    "kins_2020_test": ("kins/update_test_2020.json", "kins/testing/image_2", "kins"),
    "cocoa_train": ("cocoa/annotations/COCO_amodal_train2014.json", "coco/train2014", "cocoa"),
    "cocoa_val": ("cocoa/annotations/COCO_amodal_val2014.json", "coco/val2014", "cocoa"),
    "cocoa_test": ("cocoa/annotations/COCO_amodal_test2014.json", "coco/test2014", "cocoa"),
    "cocoa_cls_train": ("cocoa/annotations/COCO_amodal_train2014_with_classes.json", "coco/train2014", "cocoa"),
    "cocoa_cls_val": ("cocoa/annotations/COCO_amodal_val2014_with_classes.json", "coco/val2014", "cocoa"),
    "d2sa_train": (f"{_D2SA}_training_rot0.json", _D2SA_IMAGES, "d2sa"),
    "d2sa_train_augmented": (f"{_D2SA}_augmented.json", _D2SA_IMAGES, "d2sa"),
    "d2sa_val": (f"{_D2SA}_validation.json", _D2SA_IMAGES, "d2sa"),
    "d2sa_test": (f"{_D2SA}_test_info.json", _D2SA_IMAGES, "d2sa"),
    "ochuman_val": ("ochuman/annotations/ochuman_coco_format_val_range_0.00_1.00.json", "ochuman/images"),
    "ochuman_test": ("ochuman/annotations/ochuman_coco_format_test_range_0.00_1.00.json", "ochuman/images"),
}
_catalog = {name: DatasetFiles(*files, under_root=True) for name, files in _BUILTIN.items()}


def dataset_root() -> str:
    """The folder that the built-in names' files lie under (see the module's text)."""
    for variable in _ROOT_VARIABLES:
        if os.environ.get(variable):
            return os.path.expanduser(os.environ[variable])
    return "datasets"


def register_dataset(name: str, annotation_file: str, image_root: str, format: str = "coco") -> None:
    """Gives a name to a data set's files.

    Args:
        name: the new name; it may be used in the config at once.
        annotation_file: path of the annotation file; it is opened when the data set is loaded.
        image_root: folder that the file names of the images start at.
        format: the annotation file's format, one of those of a spec.

    Raises:
        ValueError: the name is taken by other files, contains a colon, or the format is not known.
    """
    if ":" in name or not name:
        raise ValueError(f"a data set's name must be a word without a colon, got {name!r}")
    if format not in _READERS:
        raise ValueError(f"data set {name!r}: unknown format {format!r}; known are: {', '.join(sorted(_READERS))}")
    files = DatasetFiles(os.fspath(annotation_file), os.fspath(image_root), format)
    if _catalog.get(name, files) != files:
        raise ValueError(f"the data set name {name!r} is already taken by {_catalog[name].annotation_file}")
    _catalog[name] = files


def dataset_names() -> list[str]:
    """The names that are known, built-in and registered."""
    return sorted(_catalog)


def dataset_files(name_or_spec: str) -> DatasetFiles:
    """The files behind a name or spec, with the data root joined in. Whether they exist is not looked at.

    Raises:
        KeyError: the name is not known; the message has the nearest known names.
        ValueError: a spec without both an annotation file and an image folder.
    """
    format, colon, rest = name_or_spec.partition(":")
    if colon and format in _READERS:
        annotation_file, image_root = _split_spec(rest)
        if not annotation_file or not image_root:
            raise ValueError(
                f"data set spec {name_or_spec!r} must have the form '{format}:path/to/annotations.json:path/to/images'"
            )
        return DatasetFiles(os.path.expanduser(annotation_file), os.path.expanduser(image_root), format)
    if name_or_spec not in _catalog:
        nearest = difflib.get_close_matches(name_or_spec, _catalog, n=3, cutoff=0.0)
        raise KeyError(
            f"unknown data set {name_or_spec!r}; nearest known names: {', '.join(map(repr, nearest))}. "
            "A data set of your own: 'coco:path/to/annotations.json:path/to/images' "
            f"(or {', '.join(format for format in _READERS if format != 'coco')} in place of coco), or register_dataset"
        )
    files = _catalog[name_or_spec]
    if files.under_root:
        root = dataset_root()
        files = DatasetFiles(
            os.path.join(root, files.annotation_file), os.path.join(root, files.image_root), files.format
        )
    return files


def load_dataset(name_or_spec: str) -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads a data set's annotations; no image is opened (but COCOA's where nothing else says its size).

    Args:
        name_or_spec: a known name, or a spec such as ``coco:annotations.json:image_folder``.

    Returns:
        The images in the order of their ids, and the data set's classes and files.

    Raises:
        KeyError: the name is not known.
        FileNotFoundError: the annotation file or the image folder does not exist; the message names the
            file, the data set and what to set.
        ValueError: a malformed spec or annotation file.
    """
    files = dataset_files(name_or_spec)
    missing = []
    if not os.path.isfile(files.annotation_file) and not (
        files.format in _FOLDER_FORMATS and os.path.isdir(files.annotation_file)
    ):
        missing.append(f"annotation file {files.annotation_file!r}")
    if not os.path.isdir(files.image_root):
        missing.append(f"image folder {files.image_root!r}")
    if missing:
        raise FileNotFoundError(
            f"data set {name_or_spec!r}: {' and '.join(missing)} not found; {_what_to_set(name_or_spec)}"
        )
    return _READERS[files.format](files.annotation_file, files.image_root, name=name_or_spec)


def dataset_info(name_or_spec: str) -> DatasetInfo:
    """Classes and files of a data set; reads it as `load_dataset` does, and raises the same."""
    return load_dataset(name_or_spec)[1]


def _split_spec(rest: str) -> tuple[str, str]:
    # Paths may have colons of their own, so the split is made after the annotation file's suffix if it has one.
    before, separator, image_root = rest.partition(".json:")
    if separator:
        return before + ".json", image_root
    annotation_file, _, image_root = rest.rpartition(":")
    return annotation_file, image_root


def _what_to_set(name: str) -> str:
    if name not in _catalog or not _catalog[name].under_root:
        return f"relative paths start at the current directory, {os.getcwd()!r}"
    files = _catalog[name]
    folders = " and ".join(dict.fromkeys(f"{p.split('/')[0]}/" for p in (files.annotation_file, files.image_root)))
    for variable in _ROOT_VARIABLES:
        if os.environ.get(variable):
            value = os.environ[variable]
            return f"the environment variable {variable} is {value!r}; set it to the folder that holds {folders}"
    return (
        f"set the environment variable {_ROOT_VARIABLES[0]} to the folder that holds {folders} (without it, that is "
        f"'datasets' in {os.getcwd()!r}); datasets/README.md shows the layout"
    )
