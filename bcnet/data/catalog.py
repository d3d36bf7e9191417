"""Data set catalog: registered names and specs, and the files behind them.

There are three ways to name a data set, all accepted wherever the config or a tool takes a data set:

- a built-in name such as ``coco_2017_train``, with its files under the data root,
- a name registered with `register_dataset`,
- a spec ``format:path/to/annotations.json:path/to/images``, which needs no registration; the formats are
  "coco", "coco_used" (without unused categories), "kins", "cocoa" (COCOA and COCOA-cls), "d2sa", "occluded_coco",
  "instaorder" (three paths: ``instaorder:instaorder.json:coco.json:images``), those of annotation tools
  (`bcnet.data.importers`: ``labelme:folder``, ``yolo:data.yaml:train``, ...), of videos ("ytvis", "ovis"), and those
  that other packages register (`bcnet.data.formats`), each with its own list of paths.

The data root is the environment variable ``BCNET_DATASETS``, else ``DETECTRON2_DATASETS``, else the folder
``datasets`` in the current directory, as in detectron2.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass

from bcnet.data.coco import load_coco_used
from bcnet.data.cocoa import load_cocoa
from bcnet.data.formats import (
    ANNOTATION_FILE,
    ANNOTATION_FILE_OR_FOLDER,
    FOLDER,
    IMAGE_FOLDER,
    OPTIONAL_IMAGE_FOLDER,
    READER_REGISTRY,
    SPLIT,
    XML_FILE_OR_FOLDER,
    YAML_FILE_OR_FOLDER,
)
from bcnet.data.importers.ade20k import load_ade20k
from bcnet.data.importers.bop import load_bop
from bcnet.data.importers.coco_folder import load_coco_folder, of_file_or_folder
from bcnet.data.importers.cvat import load_cvat
from bcnet.data.importers.label_images import load_label_images
from bcnet.data.importers.label_studio import load_label_studio
from bcnet.data.importers.labelme import load_labelme, load_labelme_ordered
from bcnet.data.importers.lvis import load_lvis
from bcnet.data.importers.voc import load_voc
from bcnet.data.importers.yolo import load_yolo
from bcnet.data.importers.ytvis import load_ytvis
from bcnet.data.instaorder import INSTAORDER_FILE, load_instaorder
from bcnet.data.kins import load_kins
from bcnet.data.occluded_coco import load_occluded_coco
from bcnet.data.records import DatasetInfo, ImageRecord

_COCO_PARTS = (ANNOTATION_FILE_OR_FOLDER, OPTIONAL_IMAGE_FOLDER)
_FOLDER_AND_IMAGES = (FOLDER, OPTIONAL_IMAGE_FOLDER)
READER_REGISTRY.register(load_coco_folder, name="coco", parts=_COCO_PARTS)
READER_REGISTRY.register(of_file_or_folder(load_coco_used), name="coco_used", parts=_COCO_PARTS)  # no unused categories
READER_REGISTRY.register(load_kins, name="kins")
READER_REGISTRY.register(load_cocoa, name="cocoa", parts=(ANNOTATION_FILE_OR_FOLDER, IMAGE_FOLDER))
READER_REGISTRY.register(load_cocoa, name="d2sa")  # the same format as COCOA-cls
READER_REGISTRY.register(load_occluded_coco, name="occluded_coco")
READER_REGISTRY.register(load_instaorder, name="instaorder", parts=(INSTAORDER_FILE, ANNOTATION_FILE, IMAGE_FOLDER))
READER_REGISTRY.register(load_labelme, name="labelme", parts=_FOLDER_AND_IMAGES)
READER_REGISTRY.register(load_labelme_ordered, name="labelme_ordered", parts=_FOLDER_AND_IMAGES)
READER_REGISTRY.register(load_yolo, name="yolo", parts=(YAML_FILE_OR_FOLDER, SPLIT))
READER_REGISTRY.register(load_cvat, name="cvat", parts=(XML_FILE_OR_FOLDER, OPTIONAL_IMAGE_FOLDER))
READER_REGISTRY.register(load_label_images, name="label-images", parts=_FOLDER_AND_IMAGES)
READER_REGISTRY.register(load_label_studio, name="label-studio")
READER_REGISTRY.register(load_lvis, name="lvis")
READER_REGISTRY.register(load_voc, name="voc", parts=(FOLDER, SPLIT))
READER_REGISTRY.register(load_bop, name="bop", parts=(FOLDER,))
READER_REGISTRY.register(load_ytvis, name="ytvis")
READER_REGISTRY.register(load_ytvis, name="ovis")  # the same format
READER_REGISTRY.register(load_ade20k, name="ade20k", parts=(FOLDER,))

_ROOT_VARIABLES = ("BCNET_DATASETS", "DETECTRON2_DATASETS")

# The scenes that the quick configs are for, which one command makes.
_SYNTHETIC = re.compile(r"coco:(\S*\bsynthetic)/annotations/(\w+)\.json:")


@dataclass(frozen=True)
class DatasetFiles:
    """Files and folders of a data set in a format: one path for each part of its spec (`bcnet.data.formats`).

    Attributes:
        under_root: the paths are relative to the data root.
    """

    paths: tuple[str, ...]
    format: str = "coco"
    under_root: bool = False

    @property
    def annotation_file(self) -> str:
        """The first path; for some formats a folder."""
        return self.paths[0]

    @property
    def image_root(self) -> str:
        """The last path; empty for a format of one path."""
        return self.paths[-1] if len(self.paths) > 1 else ""

    def missing(self) -> list[str]:
        """Descriptions of the paths that do not exist, such as "image folder 'x'"."""
        return READER_REGISTRY.get(self.format).missing(self.paths)


_D2SA, _D2SA_IMAGES = "d2sa/d2s_amodal_annotations_v1/D2S_amodal", "d2sa/d2s_amodal_images_v1/images"

# Annotation file, image folder and format (default "coco") under the data root, in the layout of the downloads.
_BUILTIN: dict[str, tuple[str, ...]] = {
    "coco_2017_train": ("coco/annotations/instances_train2017.json", "coco/train2017"),
    "coco_2017_val": ("coco/annotations/instances_val2017.json", "coco/val2017"),
    "coco_2017_test-dev": ("coco/annotations/image_info_test-dev2017.json", "coco/test2017"),
    # COCO-OCC: the images of val2017 in which two objects' boxes overlap.
    "coco_2017_occ": ("coco/annotations/instances_val2017_occ.json", "coco/val2017"),
    # Some objects of val2017, partly hidden or split by an occluder: for measuring recall only.
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
_catalog = {
    name: DatasetFiles((annotations, images), *format, under_root=True)
    for name, (annotations, images, *format) in _BUILTIN.items()
}
# COCO's instances with InstaOrder's occlusion order.
_catalog |= {
    f"instaorder_{split}": DatasetFiles(
        (
            f"coco/annotations/InstaOrder_{split}2017.json",
            f"coco/annotations/instances_{split}2017.json",
            f"coco/{split}2017",
        ),
        "instaorder",
        under_root=True,
    )
    for split in ("train", "val")
}


def dataset_root() -> str:
    """The folder that holds the files of the built-in data sets (see the module docstring)."""
    for variable in _ROOT_VARIABLES:
        if os.environ.get(variable):
            return os.path.expanduser(os.environ[variable])
    return "datasets"


def register_dataset(name: str, annotation_file: str, image_root: str | None = None, format: str = "coco") -> None:
    """Registers a name for the files of a data set.

    Args:
        name: the new name; it can be used in the config immediately.
        annotation_file: path of the annotation file; it is opened when the data set is loaded.
        image_root: folder that image file names are relative to; None for a format without one.
        format: one of `READER_REGISTRY`.

    Raises:
        ValueError: the name is already registered for other files or contains a colon, the format is unknown, or it
            takes a different number of paths.
    """
    if ":" in name or not name:
        raise ValueError(f"a data set's name must be a word without a colon, got {name!r}")
    if format not in READER_REGISTRY:
        raise ValueError(f"data set {name!r}: {READER_REGISTRY.unknown(format)}")
    paths = tuple(os.path.expanduser(path) for path in (annotation_file, image_root) if path is not None)
    reader = READER_REGISTRY.get(format)
    if not reader.accepts(len(paths)):
        raise ValueError(f"data set {name!r}: the format {format!r} is read from {reader.form!r}, got {paths}")
    files = DatasetFiles(paths, format)
    if _catalog.get(name, files) != files:
        raise ValueError(f"the data set name {name!r} is already taken by {_catalog[name].annotation_file}")
    _catalog[name] = files


def dataset_names() -> list[str]:
    """All known names, built-in and registered."""
    return sorted(_catalog)


def dataset_files(name_or_spec: str) -> DatasetFiles:
    """The files behind a name or spec, with the data root prepended. Does not check that they exist.

    Raises:
        KeyError: the name is unknown; the message lists the nearest known names.
        ValueError: a spec of an unknown format, or without a path for each part that its format has.
    """
    format, colon, rest = name_or_spec.partition(":")
    if colon:
        reader = READER_REGISTRY.get(format)
        paths = reader.split(rest)
        if paths is None:
            raise ValueError(f"data set spec {name_or_spec!r} must have the form {reader.form!r}")
        return DatasetFiles(paths, format)
    if name_or_spec not in _catalog:
        nearest = difflib.get_close_matches(name_or_spec, _catalog, n=3, cutoff=0.0)
        formats = ", ".join(READER_REGISTRY.names())
        raise KeyError(
            f"unknown data set {name_or_spec!r}; nearest known names: {', '.join(map(repr, nearest))}. "
            "For your own data set, pass its files as a spec ('coco:path/to/annotations.json:path/to/images', or "
            f"another format: {formats}) or call register_dataset"
        )
    files = _catalog[name_or_spec]
    if files.under_root:
        files = DatasetFiles(tuple(os.path.join(dataset_root(), path) for path in files.paths), files.format)
    return files


def load_dataset(name_or_spec: str) -> tuple[list[ImageRecord], DatasetInfo]:
    """Reads the annotations of a data set without opening images (except in COCOA files that lack image sizes).

    Args:
        name_or_spec: a known name, or a spec such as ``coco:annotations.json:image_folder``.

    Returns:
        The images in the order of their ids, and the data set's classes and files.

    Raises:
        KeyError: the name is unknown.
        FileNotFoundError: the annotation file or the image folder does not exist; the message names the file, the data
            set and the environment variable or path to set.
        ValueError: a malformed spec or annotation file.
    """
    files = dataset_files(name_or_spec)
    missing = files.missing()
    if missing:
        raise FileNotFoundError(
            f"data set {name_or_spec!r}: {' and '.join(missing)} not found; {_what_to_set(name_or_spec)}"
        )
    return READER_REGISTRY.get(files.format).read(*files.paths, name=name_or_spec)


def dataset_info(name_or_spec: str) -> DatasetInfo:
    """Classes and files of a data set; reads it with `load_dataset` and raises the same errors."""
    return load_dataset(name_or_spec)[1]


def _what_to_set(name: str) -> str:
    if (made := _SYNTHETIC.search(name)) is not None:
        count = 1200 if made[2] == "train" else 100
        options = f"--output {made[1]} --split {made[2]} --count {count} --seed 1 --difficulty easy"
        return f"this makes it: bcnet data scenes {options}"
    if name not in _catalog or not _catalog[name].under_root:
        return f"relative paths are resolved against the current directory, {os.getcwd()!r}"
    files = _catalog[name]
    folders = " and ".join(dict.fromkeys(f"{p.split('/')[0]}/" for p in files.paths))
    for variable in _ROOT_VARIABLES:
        if os.environ.get(variable):
            value = os.environ[variable]
            return f"the environment variable {variable} is {value!r}; set it to the folder that holds {folders}"
    return (
        f"set the environment variable {_ROOT_VARIABLES[0]} to the folder that holds {folders} (without it, that is "
        f"'datasets' in {os.getcwd()!r}); datasets/README.md shows the layout"
    )
