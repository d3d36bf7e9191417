"""Configuration: detectron2's keys plus bcnet's own, YAML files, command-line overrides, validation."""

from bcnet.config.defaults import add_bcnet_config, get_cfg, register_config
from bcnet.config.loading import find_config, load_config, packaged_configs
from bcnet.config.node import CfgNode, Level, split_overrides

__all__ = [
    "CfgNode",
    "Level",
    "add_bcnet_config",
    "find_config",
    "get_cfg",
    "load_config",
    "packaged_configs",
    "register_config",
    "split_overrides",
]
