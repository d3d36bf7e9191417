"""CfgNode: fvcore's config node that rejects unknown keys and values of another type."""

from __future__ import annotations

import ast
import difflib
import enum
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from fvcore.common.config import CfgNode as _FvcoreCfgNode

from bcnet.config.detectron2_keys import accept_detectron2_key

_LEVELS = "__levels__"  # attribute of a config: level and value of each key when it was merged


class _WithoutAnchors(yaml.SafeDumper):
    """Writes a value that occurs twice twice, not as an anchor and an alias."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class Level(enum.IntEnum):
    """Where a value comes from; a higher level overrides a lower one."""

    DEFAULT = 0
    BASE = 1  # a ``_BASE_`` of the config file, or the config saved with weights
    FILE = 2
    OVERRIDE = 3  # command line, or set by hand


class CfgNode(_FvcoreCfgNode):
    """fvcore's config node (YAML with ``_BASE_``) that accepts only known keys with values of the default's type.

    A single value for a list becomes a list of one, and an integer for a float a float. A key that only detectron2 has
    is accepted, and dropped, if its value matches bcnet's behaviour (`bcnet.config.detectron2_keys`).
    """

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merges a YAML file and its ``_BASE_`` chain.

        Raises:
            FileNotFoundError: the file, or a base of it, does not exist.
            KeyError: an unknown key, with the file and the nearest known key.
            ValueError: a value of another type than the key's default, or the file is not YAML of plain values.
        """
        if not os.path.isfile(cfg_filename):
            raise FileNotFoundError(f"config file not found: {cfg_filename!r}")
        try:
            # Files never run code: `allow_unsafe` is fvcore's switch for YAML that constructs objects.
            loaded = self.load_yaml_with_base(cfg_filename, allow_unsafe=False)
        except yaml.YAMLError as error:
            raise ValueError(f"{cfg_filename} is not YAML of plain values: {error}") from error
        self._merge(loaded, source=cfg_filename)
        with open(cfg_filename, encoding="utf-8") as file:
            own = [key for key, _ in _leaves(yaml.safe_load(file) or {})]
        self.note_level(Level.BASE, [key for key, _ in _leaves(loaded or {})])
        self.note_level(Level.FILE, own)

    def merge_from_text(self, text: str, source: str) -> None:
        """Merges YAML without a ``_BASE_``, such as `dump` writes; `source` names it in errors.

        Raises:
            KeyError, ValueError: as `merge_from_file`.
        """
        try:
            loaded = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{source} is not YAML of plain values: {error}") from error
        self._merge(loaded, source)
        self.note_level(Level.BASE, [key for key, _ in _leaves(loaded or {})])

    def dump(self, *args, **kwargs) -> str:
        """The config as YAML, in which equal values are written out: no anchors, so that one config has one text."""
        return yaml.dump(yaml.safe_load(super().dump(*args, **kwargs)), Dumper=_WithoutAnchors)

    def merge_from_list(self, cfg_list: Sequence[object]) -> None:
        """Merges overrides as given on a command line: ``KEY VALUE`` pairs and ``KEY=VALUE`` words.

        Raises:
            ValueError: a key without a value, or a value of another type than the key's default.
            KeyError: an unknown key, with the nearest known key.
        """
        words = split_overrides(cfg_list)
        self._merge_leaves(zip(words[0::2], words[1::2], strict=True), source="overrides")
        self.note_level(Level.OVERRIDE, words[0::2])

    def note_level(self, level: Level, keys: Iterable[str]) -> None:
        """Notes that the values of these keys come from a level; keys that are not in the config are passed over."""
        known = set(self.flat_keys())
        noted = self.__dict__.setdefault(_LEVELS, {})
        noted.update({key: (level, self.get_value(key)) for key in map(str, keys) if key in known})

    def level_of(self, dotted_key: str) -> Level:
        """The level that a value comes from: OVERRIDE also for a value that was set by hand."""
        level, value = self.__dict__.get(_LEVELS, {}).get(dotted_key, (Level.DEFAULT, self.get_value(dotted_key)))
        return level if value == self.get_value(dotted_key) else Level.OVERRIDE

    def set_above(self, level: Level) -> dict[str, Any]:
        """The values that come from a higher level, by dotted key."""
        return {key: value for key, value in _leaves(self) if self.level_of(key) > level}

    def flat_keys(self) -> list[str]:
        """All leaf keys in dotted form, e.g. ``"SOLVER.BASE_LR"``."""
        return [key for key, _ in _leaves(self)]

    def get_value(self, dotted_key: str) -> Any:
        """The value of ``"A.B.C"``."""
        node = self
        for name in dotted_key.split("."):
            node = node[name]
        return node

    def set_value(self, dotted_key: str, value: object) -> None:
        """Sets ``"A.B.C"``, which exists; a frozen config raises AttributeError."""
        section, _, name = dotted_key.rpartition(".")
        setattr(self.get_value(section) if section else self, name, value)

    def with_values(self, values: Mapping[str, object]) -> CfgNode:
        """A frozen copy with other values, by dotted key."""
        copy = self.clone()
        copy.defrost()
        for key, value in values.items():
            copy.set_value(key, value)
        copy.freeze()
        return copy

    def _merge(self, loaded: object, source: str) -> None:
        if not isinstance(loaded, (Mapping, type(None))):
            raise ValueError(f"{source} holds a {type(loaded).__name__}, not config keys with their values")
        self._merge_leaves(_leaves(loaded or {}), source)

    def _merge_leaves(self, leaves: Iterable[tuple[str, object]], source: str) -> None:
        known = set(self.flat_keys())
        for key, value in leaves:
            key = str(key)
            if key in known:
                self.set_value(key, _coerce(value, self.get_value(key), key, source))
            elif isinstance(value, Mapping) and not value and any(k.startswith(key + ".") for k in known):
                continue  # an empty section (`MODEL: {}`) is legal and changes nothing
            elif not accept_detectron2_key(key, _decode(value), source):
                raise KeyError(unknown_key_message(key, sorted(known), source))


def split_overrides(words: Sequence[object]) -> list[Any]:
    """``KEY VALUE`` pairs and ``KEY=VALUE`` words as a flat list of keys and values.

    Raises:
        ValueError: a key without a value, or an option of the command line among the keys.
    """
    flat: list[Any] = []
    for word in words:
        expects_key = len(flat) % 2 == 0
        if expects_key and isinstance(word, str) and word.startswith("--"):
            raise ValueError(f"options come before the config keys: {word!r} follows {str(words[0])!r}")
        if expects_key and isinstance(word, str) and "=" in word:
            flat += word.split("=", 1)
        else:
            flat.append(word)
    if len(flat) % 2:
        raise ValueError(f"overrides are KEY VALUE pairs or KEY=VALUE; {flat[-1]!r} has no value in {list(words)}")
    return flat


def _leaves(node: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, key + ".")
        else:
            yield key, value


def _decode(value: object) -> object:
    """Parses a string as a Python literal, as detectron2 reads ``"(1, 2)"`` in YAML; otherwise the value itself."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _coerce(value: object, default: object, key: str, source: str) -> object:
    decoded = _decode(value)
    if isinstance(default, str) and isinstance(value, str):
        return decoded if isinstance(decoded, str) else value  # "2024" is a name, too
    if isinstance(default, (list, tuple)) and not isinstance(decoded, (Mapping, type(None))):
        return type(default)(decoded if isinstance(decoded, (list, tuple)) else [decoded])
    if isinstance(default, float) and type(decoded) is int:
        return float(decoded)
    if type(decoded) is not type(default):
        raise ValueError(
            f"{key} is {value!r} in {source}; it must be of type {type(default).__name__}, as its default {default!r}"
        )
    return decoded


def unknown_key_message(key: str, known: Sequence[str], source: str) -> str:
    """The error text for an unknown key, with the nearest known one."""
    by_lower_case = {name.lower(): name for name in known}
    nearest = difflib.get_close_matches(key.lower(), by_lower_case, n=1, cutoff=0.0)
    return (
        f"unknown config key {key!r} in {source}; nearest known key: {by_lower_case[nearest[0]]!r} "
        "(keys of another package are known once its module is imported: --import MODULE)"
    )
