"""Synthetic scenes of a study: generated once, then reused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from bcnet.data.coco_json import read_coco_json
from bcnet.data.synthetic import CutoutLibrary, SceneConfig, generate_dataset, occlusion_statistics
from bcnet.files import write_json
from bcnet.progress import progress_wanted
from studies.occlusion.plan import VISIBLE_TRAIN, Run, StudyPlan

_COCO_KEYS = ("id", "image_id", "category_id", "iscrowd", "bbox", "area", "segmentation")


def make_scenes(plan: StudyPlan, output: str, workers: int, runs: Iterable[Run] | None = None) -> dict[str, int]:
    """Writes the scenes of a plan to ``<output>/data``, unless they exist.

    Args:
        plan: the study.
        output: the study's folder.
        workers: number of processes.
        runs: only the scenes of these runs; None: all.

    Returns:
        dict: number of classes of each set of scenes.

    Raises:
        FileExistsError: scenes of other parameters exist.
        ValueError: from `generate_dataset` or `SceneConfig`; or train and test have different classes.
    """
    num_classes = {}
    asked = set(plan.data) if runs is None else {run.data for run in runs}
    for name, splits in plan.data.items():
        if name not in asked:
            continue
        categories = [make_split(output, name, split, values, workers) for split, values in splits.items()]
        if plan.visible_only:
            write_visible(os.path.join(output, "data", name, "annotations"))
        if categories[0] != categories[1]:
            raise ValueError(f"data {name!r}: train and test scenes have different classes")
        num_classes[name] = len(categories[0])
    return num_classes


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


def describe_scenes(names: Iterable[str], output: str) -> dict[str, dict[str, str]]:
    """Occlusion statistics as text, by data set and split."""
    folder = os.path.join(output, "data")
    return {
        name: {
            split: str(occlusion_statistics(os.path.join(folder, name, "annotations", f"{split}.json")))
            for split in ("train", "test")
        }
        for name in names
    }
