"""Data of a study of heads: specs of its training and test sets; scenes are generated once."""

from __future__ import annotations

import os

from bcnet.data import dataset_info
from studies.heads.plan import HeadsPlan
from studies.scenes import VISIBLE_TRAIN, make_split, scene_spec, write_visible


def data_specs(plan: HeadsPlan, output: str, data: str, workers: int = 1) -> tuple[str, dict[str, str], int]:
    """The specs of a set of data, whose scenes are written to ``<output>/data`` unless they exist.

    Returns:
        The spec of the training set, those of the test sets by name, and the number of classes of the training set.

    Raises:
        FileExistsError: scenes of other parameters exist.
        FileNotFoundError, ValueError: a data set is missing or malformed.
    """
    values = plan.data[data]
    train = _spec(output, data, "train", values["train"], workers)
    if values["visible_only"] and "count" in values["train"]:
        write_visible(os.path.join(output, "data", data, "annotations"))
        train = scene_spec(output, data, VISIBLE_TRAIN)
    tests = {
        name: _spec(output, data, name, {"pool": "test", **split} if "count" in split else split, workers)
        for name, split in values["tests"].items()
    }
    return train, tests, dataset_info(train).num_classes


def _spec(output: str, data: str, split: str, values: dict, workers: int) -> str:
    if "count" not in values:
        return f"coco:{values['annotations']}:{values['images']}"
    make_split(output, data, split, values, workers)
    return scene_spec(output, data, split)
