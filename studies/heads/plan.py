"""HeadsPlan: data, arms, seeds and trunk of a study of mask heads on one trunk, and the config of every run."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from bcnet.config import load_config
from bcnet.registry import import_modules
from studies.plan_files import chosen_runs, merged, read_plan_file, require_section
from studies.scenes import check_scenes

# Who trains the trunk: nobody, the sum of all arms' losses, or the arm of this name.
NONE, ALL = "none", "all"
_OPTIONAL = {
    "imports": (),
    "visible_only": False,
    "settings": {},
    "views": 8,
    "rois": 32,
    "olac": "",
    "resamples": 2000,
}
_KEYS = ("config", "trunk", "seeds", "data", "arms", "compare", *_OPTIONAL)
_COUNTS = ("views", "rois", "resamples")
_HEAD_SECTIONS = ("MODEL.ROI_MASK_HEAD.", "MODEL.BILAYER.")
_OF_THE_TRUNK = {
    *(
        f"MODEL.ROI_MASK_HEAD.{key}"
        for key in ("POOLER_RESOLUTION", "POOLER_SAMPLING_RATIO", "ROI_SCALE", "BOX_JITTER")
    ),
    "MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO",
}
_DATA_KEYS = {"train", "tests", "settings", "visible_only"}


@dataclass(frozen=True)
class HeadsRun:
    """One training: arms on a set of data with a seed. With a frozen trunk every arm is a run of its own."""

    data: str
    seed: int
    arms: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's folder, relative to the folder of the runs."""
        return f"{self.data}/seed_{self.seed}/{self.arms[0] if len(self.arms) == 1 else ALL}"


@dataclass(frozen=True)
class HeadsPlan:
    """The content of the YAML file of a study of heads.

    Attributes:
        config: config file of the trunk; its detector is replaced by the box-prompted model.
        trunk: who trains it: "none" (frozen at MODEL.WEIGHTS, its features are cached), "all" (the sum of the arms'
            losses), or the name of an arm, the others then learn on features that they do not influence.
        seeds: each trains every arm once on every set of data.
        data: by name "train" and the "tests" by name. A split is scenes (as in a `StudyPlan`, with ``count``) or a COCO
            json (``annotations`` and ``images`` alone). "settings" are config overrides of this data, such as
            composition; with ``visible_only`` training scenes have neither depth order nor amodal masks.
        arms: config overrides of each arm's head by name, nested as in a config file.
        compare: pairs of arms, the first minus the second. An arm is its name, or "data/arm" for an arm of other data
            with the same tests. In the file a first member with "*" stands for each arm that it matches (`fnmatch`).
        settings: config overrides of all runs.
        views: augmented passes over the training images that are cached for a frozen trunk.
        rois: RoIs of an iteration with a frozen trunk.
        olac: file of COCO-OLAC's occlusion levels; empty without.
        resamples: of the bootstrap.
    """

    config: str
    trunk: str
    seeds: tuple[int, ...]
    data: Mapping[str, Mapping]
    arms: Mapping[str, Mapping]
    compare: tuple[tuple[str, str], ...]
    settings: Mapping
    views: int = 8
    rois: int = 32
    olac: str = ""
    resamples: int = 2000

    @property
    def frozen(self) -> bool:
        return self.trunk == NONE

    def runs(self, patterns: Sequence[str] = ("*",)) -> list[HeadsRun]:
        """The runs whose names match one of the patterns (`fnmatch`), seed by seed.

        Raises:
            ValueError: no run matches.
        """
        groups = [(arm,) for arm in self.arms] if self.frozen else [tuple(self.arms)]
        runs = [HeadsRun(data, seed, arms) for seed in self.seeds for data in self.data for arms in groups]
        return chosen_runs(runs, patterns)

    def trunk_config(self, run: HeadsRun, output: str, train: str, num_classes: int):
        """The config of a run: trunk, training data and solver.

        Args:
            output: the study's folder.
            train: spec of the training data.
            num_classes: K of the training data.
        """
        own = {
            "OUTPUT_DIR": os.path.join(output, "runs", run.name),
            "SEED": run.seed,
            "VIS_PERIOD": 0,
            "MODEL": {"META_ARCHITECTURE": "BoxPrompted", "MASK_ON": True, "ROI_HEADS": {"NUM_CLASSES": num_classes}},
            "DATASETS": {"TRAIN": [train], "TEST": []},
        }
        return self._load(merged(merged(self.settings, self.data[run.data].get("settings", {})), own), run.name)

    def arm_config(self, arm: str):
        """The config of an arm, whose head alone is read."""
        return self._load(merged(self.settings, self.arms[arm]), f"arm {arm}")

    def _load(self, changes: Mapping, label: str):
        return load_config(self.config, text=yaml.safe_dump(changes), source=f"the plan's {label}")


def load_heads_plan(path: str | os.PathLike, opts: Sequence[str] = ()) -> HeadsPlan:
    """Reads a plan, and imports the modules with heads of its own that it names under ``imports``.

    Args:
        path, opts: see `read_plan_file`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: an unknown or missing key, or an invalid value.
        ImportError: from a module of ``imports``.
    """
    content = {**_OPTIONAL, **read_plan_file(path, opts, keys=_KEYS, optional=tuple(_OPTIONAL), counts=_COUNTS)}
    import_modules(content.pop("imports"))
    if not isinstance(content["compare"], list) or not all(map(_is_pair, content["compare"])):
        raise ValueError(f"{path}: compare must be a list of pairs of arms, got {content['compare']}")
    visible = {"visible_only": content.pop("visible_only")}
    plan = HeadsPlan(
        **{
            **content,
            "seeds": tuple(content["seeds"]),
            "data": {name: {**visible, **values} for name, values in content["data"].items()},
            "arms": {name: changes or {} for name, changes in content["arms"].items()},
            "compare": tuple(_expanded(content["compare"], list(content["arms"]))),
        }
    )
    _check(plan, str(path))
    return plan


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(arm, str) for arm in value)


def _check_arm(changes: Mapping, label: str) -> None:
    """Raises ValueError if an arm sets what is not of its head: trunk, RoIs and training are one for all arms."""
    for key in _keys(changes):
        if not key.startswith(_HEAD_SECTIONS) or key in _OF_THE_TRUNK:
            raise ValueError(
                f"{label} sets {key}, which is one for all arms: set it under settings, or data.NAME.settings"
            )


def _keys(changes: Mapping, prefix: str = "") -> Iterator[str]:
    for key, value in changes.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _expanded(compare: Sequence[Sequence[str]], arms: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs, those whose first member is a pattern with one for each arm that it matches."""
    pairs = []
    for first, second in compare:
        matching = [arm for arm in arms if fnmatch.fnmatchcase(arm, first) and arm != second] if "*" in first else []
        pairs += [(arm, second) for arm in matching or [first]]
    return list(dict.fromkeys(pairs))


def _check(plan: HeadsPlan, source: str) -> None:
    if plan.trunk not in (NONE, ALL, *plan.arms):
        raise ValueError(f"{source}: trunk is {plan.trunk!r}; it must be {NONE!r}, {ALL!r} or an arm")
    for arm, changes in plan.arms.items():
        _check_arm(changes, f"{source}: arm {arm!r}")
        if arm in (NONE, ALL) or not arm.replace("_", "").isalnum():
            raise ValueError(f"{source}: {arm!r} is no name of an arm: letters, digits and _, not {NONE!r} or {ALL!r}")
    for reference in (reference for pair in plan.compare for reference in pair):
        data, _, arm = reference.rpartition("/")
        if arm not in plan.arms or (data and data not in plan.data):
            raise ValueError(f"{source}: compare names {reference!r}, not one of the arms {', '.join(plan.arms)}")
    for name, values in plan.data.items():
        if not {"train", "tests"} <= set(values) <= _DATA_KEYS or not values["tests"]:
            raise ValueError(
                f"{source}: data {name!r} has {sorted(values)}; it needs train and tests, may have "
                f"{', '.join(sorted(_DATA_KEYS - {'train', 'tests'}))}"
            )
        for test, content in values["tests"].items():
            require_section(content, f"{source}: data.{name}.{test}")
        for split, content in {"train": values["train"], **values["tests"]}.items():
            if set(content) != {"annotations", "images"}:
                check_scenes(content, f"{source}: data {name}.{split}")
    clipping = plan.trunk_config(plan.runs()[0], "", "", 1).SOLVER.CLIP_GRADIENTS
    if clipping.ENABLED and clipping.CLIP_TYPE == "full_model":
        raise ValueError(
            f"{source}: SOLVER.CLIP_GRADIENTS.CLIP_TYPE 'full_model' would couple the arms, each of which would be "
            "clipped by the others' gradients; set it to 'norm' or 'value'"
        )
