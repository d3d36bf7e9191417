"""Messages about detectron2's config: bcnet's keys that were not added, and unknown keys with the nearest known one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from bcnet.config.node import unknown_key_message


def require_bcnet_keys(cfg) -> None:
    """
    Raises:
        ValueError: bcnet's keys were not added to the config.
    """
    if "BILAYER" not in cfg.MODEL:
        raise ValueError(
            "the config has no MODEL.BILAYER: call bcnet.detectron2.add_bcnet_config(cfg) after get_cfg() and before "
            "files and options are merged"
        )


@contextlib.contextmanager
def nearest_key(cfg, source: str) -> Iterator[None]:
    """Context in which merging an unknown key into detectron2's config names the nearest known one.

    Raises:
        KeyError: an unknown key.
    """
    try:
        yield
    except (KeyError, AssertionError) as error:
        unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", str(error))
        if unknown is None:
            raise
        raise KeyError(unknown_key_message(unknown[1], sorted(_flat_keys(cfg)), source)) from None


def _flat_keys(node: Mapping, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name
