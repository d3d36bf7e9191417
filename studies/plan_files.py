"""Plans of studies as YAML files: reading, overrides from the command line, nested merging, and the choice of runs."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import yaml

_NAMED = ("data", "arms", "detectors")  # sections whose keys are names of one's own


class NamedRun(Protocol):
    """One training of a study."""

    @property
    def name(self) -> str: ...


AnyRun = TypeVar("AnyRun", bound=NamedRun)


def read_plan_file(
    path: str | os.PathLike,
    opts: Sequence[str] = (),
    *,
    keys: Sequence[str],
    optional: Sequence[str] = (),
    counts: Sequence[str] = (),
) -> dict:
    """The content of a plan's YAML file, with overrides.

    Args:
        path: the file.
        opts: ``KEY VALUE`` pairs that override values, e.g. ``["settings.SOLVER.MAX_ITER", "100"]``; values are YAML.
        keys: the keys of such a plan; "seeds" among them.
        optional: those of them that may be absent.
        counts: those of them whose value is a positive integer.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not YAML, a key is unknown or missing, an override is malformed, a section of the plan, an arm
            or a set of data is no section, the seeds are no list of different non-negative integers,
            or a count is none.
    """
    with open(path, encoding="utf-8") as file:
        try:
            content = yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold the keys of a plan ({', '.join(keys)}), got {content!r}")
    if options := [word for word in opts if word.startswith("--")]:
        raise ValueError(f"options go before the KEY VALUE pairs: {' '.join(options)}")
    if len(opts) % 2:
        raise ValueError(f"overrides come in KEY VALUE pairs, got {len(opts)} words: {list(opts)}")
    for key, value in zip(opts[0::2], opts[1::2], strict=True):
        try:
            _replace(content, key, yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ValueError(f"override {key!r}: {value!r} is not YAML") from error
    unknown = sorted(set(content) - set(keys))
    missing = [key for key in keys if key not in content and key not in optional]
    if unknown or missing:
        raise ValueError(f"{path}: a plan has the keys {', '.join(keys)}; unknown: {unknown}, missing: {missing}")
    _check_sections(content, str(path))
    seeds = content["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(_is_integer(seed) and seed >= 0 for seed in seeds):
        raise ValueError(f"{path}: seeds must be a list of non-negative integers, got {seeds}")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{path}: seeds must differ from each other, got {seeds}")
    for key in counts:
        if key in content and not (_is_integer(content[key]) and content[key] >= 1):
            raise ValueError(f"{path}: {key} must be an integer of at least 1, got {content[key]!r}")
    return content


def require_section(value: object, label: str) -> None:
    """Raises ValueError unless the value is a section, a mapping of keys to values; the label names it."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{label} must be a section of keys and values, got {value!r}")


def _check_sections(content: Mapping, source: str) -> None:
    for key in ("data", "detectors", "arms", "settings"):
        if key in ("data", "arms") or content.get(key) is not None:  # the others are not in every plan
            require_section(content[key], f"{source}: {key}")
    for name, arm in content["arms"].items():
        if arm is not None:  # without changes
            require_section(arm, f"{source}: arms.{name}")
    for name, data in content["data"].items():
        require_section(data, f"{source}: data.{name}")
        for split in ("train", "test", "tests"):
            if split in data:
                require_section(data[split], f"{source}: data.{name}.{split}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def chosen_runs(runs: Sequence[AnyRun], patterns: Sequence[str]) -> list[AnyRun]:
    """The runs whose names match one of the patterns (`fnmatch`), in their order.

    Raises:
        ValueError: no run matches.
    """
    chosen = [run for run in runs if any(fnmatch.fnmatchcase(run.name, pattern) for pattern in patterns)]
    if not chosen:
        raise ValueError(f"no run matches {' or '.join(patterns)}; there are: {', '.join(run.name for run in runs)}")
    return chosen


def merged(base: Mapping, changes: Mapping) -> dict:
    """`base` recursively updated with `changes`."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def _replace(content: dict, key: str, value: object) -> None:
    *sections, name = key.split(".")
    if len(sections) > 1 and sections[0] in _NAMED and isinstance(content.get(sections[0]), dict):
        names = content[sections[0]]
        if sections[1] not in names:
            raise ValueError(f"override {key!r}: {sections[0]} has no {sections[1]!r}; there are {', '.join(names)}")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ValueError(f"override {key!r}: {section!r} is not a section, it is {content!r}")
    content[name] = value
