"""Config loading: defaults, YAML file or text, overrides; then validated and frozen."""

from __future__ import annotations

import difflib
import os
import pathlib
from collections.abc import Sequence

from bcnet.config.defaults import get_cfg
from bcnet.config.node import CfgNode
from bcnet.config.validate import validate_config, value_of

_PATHS = ("OUTPUT_DIR", "MODEL.WEIGHTS")


def find_config(name: str | os.PathLike) -> str:
    """The config file at a path or, if there is none, the packaged config of that name.

    Args:
        name: a path, or a path inside the folder ``configs``, with or without that folder.

    Raises:
        FileNotFoundError: neither exists; suggests the nearest packaged config.
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
    """The names of the packaged configs, as `find_config` accepts them."""
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
    """Defaults, then a YAML file or text, then overrides, validated and frozen; ``~`` in paths is expanded.

    Keys that the backbone derives from its own section (`derived_config`: pixel statistics and channel order of a timm
    model) take its values where they have their defaults.

    Args:
        config_file: a path, or the name of a packaged config, see `find_config`.
        opts: ``KEY VALUE`` pairs or ``KEY=VALUE`` words in one list.
        text: YAML as `CfgNode.dump` writes it, merged after the file.
        source: name of the text in errors.

    Raises:
        FileNotFoundError: ``config_file`` does not exist.
        KeyError: an unknown key.
        ValueError: an invalid value.
    """
    cfg = get_cfg()
    if config_file:
        cfg.merge_from_file(find_config(config_file))
    if text is not None:
        cfg.merge_from_text(text, source)
    cfg.merge_from_list(list(opts))
    for key, value in derived_from_backbone(cfg).items():
        cfg.set_value(key, value)
    for key in _PATHS:
        cfg.set_value(key, os.path.expanduser(cfg.get_value(key)))
    validate_config(cfg)
    cfg.freeze()
    return cfg


def derived_from_backbone(cfg) -> dict[str, object]:
    """The values that the backbone of a config, of either host, derives for keys that have their defaults.

    Raises:
        ImportError, ValueError: as the backbone's `derived_config`.
    """
    # Imported here: importing the models fills the registry, and `bcnet.modeling` depends on this package.
    from bcnet.modeling import BACKBONE_REGISTRY

    name, defaults = cfg.MODEL.BACKBONE.NAME, get_cfg()
    derive = getattr(BACKBONE_REGISTRY.get(name), "derived_config", None) if name in BACKBONE_REGISTRY else None
    derived = {} if derive is None else derive(cfg)
    return {key: value for key, value in derived.items() if value_of(cfg, key) == defaults.get_value(key)}
