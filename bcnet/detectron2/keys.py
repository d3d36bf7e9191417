"""Checks of detectron2's config: presence of bcnet's keys, and messages for unknown ones."""

from __future__ import annotations


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
