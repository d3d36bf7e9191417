"""Synthetic scenes of a study: generated once, then reused."""

from __future__ import annotations

import os
from collections.abc import Iterable

from bcnet.data.synthetic import occlusion_statistics
from studies.occlusion.plan import Run, StudyPlan
from studies.scenes import make_split, write_visible


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
