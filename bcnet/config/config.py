"""Config nodes that refuse what they do not know, and the one way to load a config file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence

from fvcore.common.config import CfgNode as _FvcoreCfgNode


class CfgNode(_FvcoreCfgNode):
    """fvcore's config node (YAML with ``_BASE_``), refusing unknown keys with the nearest known one."""

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merges a YAML file and its ``_BASE_`` chain.

        Raises:
            FileNotFoundError: the file, or a base of it, does not exist.
            KeyError: a key that is not known, naming the file and the nearest known key.
        """
        if not os.path.isfile(cfg_filename):
            raise FileNotFoundError(f"config file not found: {cfg_filename!r}")
        # Files never run code: `allow_unsafe` is fvcore's switch for YAML that constructs objects.
        loaded = self.load_yaml_with_base(cfg_filename, allow_unsafe=False)
        self._refuse_unknown(loaded, source=cfg_filename)
        self.merge_from_other_cfg(type(self)(loaded))

    def merge_from_list(self, cfg_list: Sequence[object]) -> None:
        """Merges ``KEY VALUE`` pairs, as given on a command line.

        Raises:
            ValueError: a key without a value.
            KeyError: a key that is not known, naming the nearest known key.
        """
        if len(cfg_list) % 2:
            raise ValueError(f"overrides come in KEY VALUE pairs, got {len(cfg_list)} words: {list(cfg_list)}")
        known = self.flat_keys()
        for key in cfg_list[0::2]:
            if str(key) not in known:
                raise KeyError(_unknown_key(str(key), known, source="overrides"))
        super().merge_from_list(list(cfg_list))

    def flat_keys(self) -> list[str]:
        """All leaf keys in dotted form, e.g. ``"SOLVER.BASE_LR"``."""
        return [key for key, _ in _leaves(self)]

    def _refuse_unknown(self, loaded: Mapping, source: str) -> None:
        known = set(self.flat_keys())
        for key, value in _leaves(loaded):
            if key in known:
                continue
            # An empty section (`MODEL: {}`) is legal and merges to nothing.
            if isinstance(value, Mapping) and not value and any(k.startswith(key + ".") for k in known):
                continue
            raise KeyError(_unknown_key(key, sorted(known), source))


def _leaves(node: Mapping, prefix: str = ""):
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, key + ".")
        else:
            yield key, value


def _unknown_key(key: str, known: Sequence[str], source: str) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"unknown config key {key!r} in {source}; nearest known key: {nearest[0]!r}"


def get_cfg() -> CfgNode:
    """A fresh copy of the default config."""
    from bcnet.config.defaults import default_config

    return default_config()


def load_config(config_file: str | None = None, opts: Sequence[object] = ()) -> CfgNode:
    """Defaults, then a YAML file, then ``KEY VALUE`` overrides, validated and frozen.

    Raises:
        FileNotFoundError: ``config_file`` does not exist.
        KeyError: an unknown key.
        ValueError: a value that no component can work with.
    """
    from bcnet.config.validate import validate_config

    cfg = get_cfg()
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(opts))
    validate_config(cfg)
    cfg.freeze()
    return cfg
