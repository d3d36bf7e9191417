"""The scenes of a study, made once and found again."""

from __future__ import annotations

import json
import os

from bcnet.data.synthetic import CutoutLibrary, SceneConfig, generate_dataset, occlusion_statistics
from bcnet.engine.run_log import progress_wanted
from bcnet.study.plan import StudyPlan


def make_scenes(plan: StudyPlan, output: str, workers: int) -> dict[str, int]:
    """Writes the scenes of a plan below ``<output>/data``, where they are not there already.

    Returns:
        dict: number of classes of each set of scenes.

    Raises:
        FileExistsError: scenes of other parameters lie there.
        ValueError: what `generate_dataset` or `SceneConfig` finds wrong; train and test have different classes.
    """
    num_classes = {}
    for name, splits in plan.data.items():
        categories = [_make_split(output, name, split, dict(values), workers) for split, values in splits.items()]
        if categories[0] != categories[1]:
            raise ValueError(f"data {name!r}: train and test scenes have different classes")
        num_classes[name] = len(categories[0])
    return num_classes


def _make_split(output: str, name: str, split: str, values: dict, workers: int) -> list[dict]:
    pool = values.get("pool", split)
    config = SceneConfig.preset(
        values.get("difficulty", "hard"), image_size=values.get("size", 192), texture_pool=pool, shape_pool=pool
    )
    library = None
    if "annotations" in values:
        library = CutoutLibrary.from_files(values["annotations"], values["images"])
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
    with open(annotation_file, encoding="utf-8") as file:
        return json.load(file)["categories"]


def describe_scenes(plan: StudyPlan, output: str) -> dict[str, dict[str, str]]:
    """How much occlusion each split holds, by data set and split."""
    folder = os.path.join(output, "data")
    return {
        name: {
            split: str(occlusion_statistics(os.path.join(folder, name, "annotations", f"{split}.json")))
            for split in splits
        }
        for name, splits in plan.data.items()
    }
