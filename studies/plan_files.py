"""Plans of studies as YAML files: reading, overrides from the command line, and nested merging."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import yaml


def read_plan_file(
    path: str | os.PathLike, opts: Sequence[str] = (), *, keys: Sequence[str], optional: Sequence[str] = ()
) -> dict:
    """The content of a plan's YAML file, with overrides.

    Args:
        path: the file.
        opts: ``KEY VALUE`` pairs that override values, e.g. ``["settings.SOLVER.MAX_ITER", "100"]``; values are YAML.
        keys: the keys of such a plan; "seeds" among them.
        optional: those of them that may be absent.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not YAML, a key is unknown or missing, an override is malformed, or the seeds are no list of
            non-negative integers.
    """
    with open(path, encoding="utf-8") as file:
        try:
            content = yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold the keys of a plan ({', '.join(keys)}), got {content!r}")
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
    seeds = content["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise ValueError(f"{path}: seeds must be a list of non-negative integers, got {seeds}")
    return content


def merged(base: Mapping, changes: Mapping) -> dict:
    """`base` recursively updated with `changes`."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def _replace(content: dict, key: str, value: object) -> None:
    *sections, name = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ValueError(f"override {key!r}: {section!r} is not a section, it is {content!r}")
    content[name] = value
