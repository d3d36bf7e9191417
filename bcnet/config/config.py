"""Config nodes that refuse what they do not know, and the one way to load a config file."""

from __future__ import annotations

import difflib
import os
import pathlib
from collections.abc import Mapping, Sequence

import yaml
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
        self._merge_loaded(self.load_yaml_with_base(cfg_filename, allow_unsafe=False), source=cfg_filename)

    def merge_from_text(self, text: str, source: str) -> None:
        """Merges YAML without a ``_BASE_``, such as `dump` writes; `source` is what an error calls it.

        Raises:
            KeyError: a key that is not known, naming the nearest known key.
        """
        self._merge_loaded(yaml.safe_load(text) or {}, source)

    def _merge_loaded(self, loaded: Mapping, source: str) -> None:
        self._refuse_unknown(loaded, source=source)
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


def find_config(name: str | os.PathLike) -> str:
    """The config file of that path or, where there is none, the one of that name that comes with the package.

    Args:
        name: a path, or a path inside the folder ``configs``, with or without that folder.

    Raises:
        FileNotFoundError: neither exists; names the nearest that comes with the package.
    """
    path = os.path.expanduser(os.fspath(name))
    if os.path.isfile(path):
        return path
    root = packaged_configs_root()
    inside = os.path.normpath(path).removeprefix("configs" + os.sep)
    packaged = os.path.join(root, inside)
    if not os.path.isabs(path) and not inside.startswith("..") and os.path.isfile(packaged):
        return packaged
    nearest = difflib.get_close_matches(inside, packaged_configs(), n=1, cutoff=0.0)
    advice = f"; nearest that comes with the package: {nearest[0]!r}" if nearest else ""
    raise FileNotFoundError(f"config file not found: {os.fspath(name)!r}{advice}")


def packaged_configs() -> list[str]:
    """The names of the configs that come with the package, as `find_config` takes them."""
    root = pathlib.Path(packaged_configs_root())
    return sorted(file.relative_to(root).as_posix() for file in root.rglob("*.yaml"))


def packaged_configs_root() -> str:
    """The folder of the configs: inside the installed package, or beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "configs")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "configs")


def load_config(
    config_file: str | None = None,
    opts: Sequence[object] = (),
    *,
    text: str | None = None,
    source: str = "the config's text",
) -> CfgNode:
    """Defaults, then a YAML file or text, then ``KEY VALUE`` overrides, validated and frozen.

    Args:
        config_file: a path, or the name of a config that comes with the package, see `find_config`.
        opts: ``KEY VALUE`` pairs in one list.
        text: YAML as `CfgNode.dump` writes it, merged after the file.
        source: what an error calls the text.

    Raises:
        FileNotFoundError: ``config_file`` does not exist.
        KeyError: an unknown key.
        ValueError: a value that no component can work with.
    """
    from bcnet.config.validate import validate_config

    cfg = get_cfg()
    if config_file:
        cfg.merge_from_file(find_config(config_file))
    if text is not None:
        cfg.merge_from_text(text, source)
    cfg.merge_from_list(list(opts))
    validate_config(cfg)
    cfg.freeze()
    return cfg
