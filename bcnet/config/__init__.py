"""Configuration: detectron2's key names with our additions, YAML files, overrides."""

from bcnet.config.config import CfgNode, find_config, get_cfg, load_config, packaged_configs
from bcnet.config.defaults import add_bcnet_config

__all__ = ["CfgNode", "add_bcnet_config", "find_config", "get_cfg", "load_config", "packaged_configs"]
