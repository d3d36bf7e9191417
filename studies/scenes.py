"""Synthetic scenes of a study: the values of a split in a plan, their data set specs, and writing them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bcnet.data.coco_json import read_coco_json
from bcnet.data.synthetic import CutoutLibrary, SceneConfig, generate_dataset
from bcnet.files import write_json
from bcnet.progress import progress_wanted

# Name of the training split without depth order and amodal masks.
VISIBLE_TRAIN = "train_visible"
_SPLIT_KEYS = {"count", "seed", "size", "difficulty", "pool", "annotations", "images", "single_class"}
_COCO_KEYS = ("id", "image_id", "category_id", "iscrowd", "bbox", "area", "segmentation")


def check_scenes(values: Mapping, label: str) -> None:
    """Raises ValueError unless these are values of a split of scenes; the label names it."""
    unknown = sorted(set(values) - _SPLIT_KEYS)
    if unknown or "count" not in values or ("annotations" in values) != ("images" in values):
        raise ValueError(
            f"{label} has {sorted(values)}; it needs count, may have {', '.join(sorted(_SPLIT_KEYS - {'count'}))}, "
            "and annotations and images go together"
        )


def scene_spec(output: str, data: str, split: str) -> str:
    """The data set spec of a split's scenes, for a run's config."""
    folder = os.path.join(output, "data", data)
    return f"coco:{os.path.join(folder, 'annotations', f'{split}.json')}:{os.path.join(folder, 'images')}"


def make_split(output: str, name: str, split: str, values: Mapping, workers: int) -> list[dict]:
    """Writes one split of scenes (`scene_spec` is its spec), unless it exists; returns COCO's list of its categories.

    Raises:
        FileExistsError, ValueError: see `make_scenes`.
    """
    pool = values.get("pool", split)
    config = SceneConfig.preset(
        values.get("difficulty", "hard"), image_size=values.get("size", 192), texture_pool=pool, shape_pool=pool
    )
    library = None
    if "annotations" in values:
        library = CutoutLibrary.from_files(
            values["annotations"], values["images"], single_class=values.get("single_class", False)
        )
    annotation_file = generate_dataset(
        os.path.join(output, "data", name),
        values["count"],
        config,
        values.get("seed", 0),
        workers,
        split,
        library=library,
        progress=progress_wanted(),
    )
    return read_coco_json(annotation_file)["categories"]


def write_visible(folder: str) -> None:
    """Writes the training annotations as plain COCO: visible masks and boxes, no depth order, no amodal masks."""
    path = os.path.join(folder, f"{VISIBLE_TRAIN}.json")
    if not os.path.exists(path):
        content = read_coco_json(os.path.join(folder, "train.json"))
        plain = [{key: a[key] for key in _COCO_KEYS} for a in content["annotations"]]
        write_json(path, {**content, "annotations": plain}, indent=None)
