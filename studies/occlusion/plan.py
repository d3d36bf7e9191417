"""StudyPlan: scenes, detectors, arms and seeds of a study, and the config of every run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from bcnet.config import load_config
from bcnet.registry import import_modules
from studies.plan_files import chosen_runs, merged, read_plan_file
from studies.scenes import VISIBLE_TRAIN, check_scenes, scene_spec

# Arm name of the initial run, the detector without masks, whose weights all arms of a detector and seed start from.
START = "start"
_OWN_KEYS = {"OUTPUT_DIR", "SEED", "DATASETS"}
_OPTIONAL_KEYS = ("imports", "visible_only", "start", "settings")
_KEYS = ("seeds", "data", "detectors", "arms", "baseline", "candidate", *_OPTIONAL_KEYS)


@dataclass(frozen=True)
class Run:
    """One training: an arm of a detector on a set of scenes with a seed."""

    data: str
    detector: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """The run's folder, relative to the study's folder."""
        return f"{self.data}/{self.detector}/{self.arm}/seed_{self.seed}"

    @property
    def start(self) -> Run:
        """The run whose weights this one starts from."""
        return Run(self.data, self.detector, START, self.seed)


@dataclass(frozen=True)
class StudyPlan:
    """The content of a study's YAML file.

    Attributes:
        seeds: each trains every arm of every detector once.
        data: sets of scenes by name, each with the splits "train" and "test" with ``count``, ``seed``, ``size``,
            ``difficulty`` (`SceneConfig.preset`) and ``pool``; with ``annotations`` and ``images``, scenes are
            composed of cut-outs of that COCO data set, with ``single_class`` all of one class.
        detectors: config files by name.
        arms: config overrides of each arm by name, nested as in a config file.
        baseline: the arm that the others are compared with.
        candidate: the arm that the ablations are compared with.
        start: config overrides of the initial run without masks; None trains every arm from the detector's own weights.
        settings: config overrides of all runs.
        visible_only: arms that are trained only on visible masks, without depth order and amodal masks.
        imports: modules that register components of one's own; `load_plan` imports them, and so does each run.
    """

    seeds: tuple[int, ...]
    data: Mapping[str, Mapping[str, Mapping]]
    detectors: Mapping[str, str]
    arms: Mapping[str, Mapping]
    baseline: str
    candidate: str
    start: Mapping | None
    settings: Mapping
    visible_only: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that an interrupted study has complete seeds; initial runs precede those that
        start from their weights."""
        places = [(data, detector) for data in self.data for detector in self.detectors]
        arms = ([] if self.start is None else [START]) + list(self.arms)
        return [Run(*place, arm, seed) for seed in self.seeds for arm in arms for place in places]

    def chosen(self, patterns: Sequence[str] = ("*",)) -> list[Run]:
        """The runs whose names match one of the patterns (`fnmatch`), and the initial runs that they start from.

        Raises:
            ValueError: no run matches.
        """
        runs = self.runs()
        chosen = set(chosen_runs(runs, patterns))
        if self.start is not None:
            chosen |= {run.start for run in chosen}
        return [run for run in runs if run in chosen]

    def config(self, run: Run, output: str, *, num_classes: int):
        """The config of a run.

        Args:
            output: the study's folder.
            num_classes: K, the number of classes of the run's scenes.

        Raises:
            KeyError, ValueError, FileNotFoundError: from `load_config`.
        """
        is_start = run.arm == START
        train = VISIBLE_TRAIN if run.arm in self.visible_only else "train"
        changes = merged(self.settings, (self.start or {}) if is_start else self.arms[run.arm])
        own = {
            "OUTPUT_DIR": run_folder(output, run),
            "SEED": run.seed,
            "MODEL": {"MASK_ON": not is_start, "ROI_HEADS": {"NUM_CLASSES": num_classes}},
            "DATASETS": {
                "TRAIN": [scene_spec(output, run.data, train)],
                "TEST": [scene_spec(output, run.data, "test")],
            },
        }
        if self.start is not None and not is_start:
            own["MODEL"]["WEIGHTS"] = os.path.join(run_folder(output, run.start), "model_final.pth")
        text = yaml.safe_dump(merged(changes, own))
        return load_config(self.detectors[run.detector], text=text, source=f"the plan of {run.name}")


def run_folder(output: str, run: Run) -> str:
    return os.path.join(output, "runs", run.name)


def load_plan(path: str | os.PathLike, opts: Sequence[str] = ()) -> StudyPlan:
    """Reads a plan.

    Args:
        path: the plan's YAML file.
        opts: ``KEY VALUE`` pairs that override values, e.g. ``["settings.SOLVER.MAX_ITER", "100"]``; values are YAML.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: an unknown or missing key, or an invalid value.
        ImportError: from a module of ``imports``.
    """
    content = read_plan_file(path, opts, keys=_KEYS, optional=_OPTIONAL_KEYS)
    plan = StudyPlan(
        seeds=tuple(content["seeds"]),
        data=content["data"],
        detectors=content["detectors"],
        arms={name: changes or {} for name, changes in content["arms"].items()},
        baseline=content["baseline"],
        candidate=content["candidate"],
        start=content.get("start"),
        settings=content.get("settings") or {},
        visible_only=tuple(content.get("visible_only") or ()),
        imports=tuple(content.get("imports") or ()),
    )
    import_modules(plan.imports)
    _check(plan, str(path))
    return plan


def _check(plan: StudyPlan, source: str) -> None:
    for key in ("baseline", "candidate"):
        if getattr(plan, key) not in plan.arms:
            raise ValueError(f"{source}: {key} {getattr(plan, key)!r} is not one of the arms {', '.join(plan.arms)}")
    if unknown := [arm for arm in plan.visible_only if arm not in plan.arms]:
        raise ValueError(f"{source}: visible_only names {unknown[0]!r}, not one of the arms {', '.join(plan.arms)}")
    if START in plan.arms:
        raise ValueError(f"{source}: {START!r} is reserved for the detector without masks, rename the arm")
    for name, changes in {"settings": plan.settings, "start": plan.start or {}, **plan.arms}.items():
        if taken := sorted(_OWN_KEYS & set(changes)):
            raise ValueError(
                f"{source}: {name} sets {', '.join(taken)}, which the study sets itself, by seeds and data"
            )
    for name, splits in plan.data.items():
        if set(splits) != {"train", "test"}:
            raise ValueError(f"{source}: data {name!r} needs the splits train and test, got {sorted(splits)}")
        for split, values in splits.items():
            check_scenes(values, f"{source}: data {name}.{split}")
