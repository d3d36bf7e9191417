"""Configuration: detectron2's key names with our additions, YAML files, overrides."""

from bcnet.config.config import CfgNode, get_cfg, load_config
from bcnet.config.defaults import add_bcnet_config

__all__ = ["CfgNode", "add_bcnet_config", "get_cfg", "load_config"]
