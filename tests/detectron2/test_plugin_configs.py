"""The same YAML files on either host."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import pathlib

from detectron2.config import get_cfg
from plugin_samples import CONFIGS

from bcnet.config import CfgNode, load_config
from bcnet.detectron2 import add_bcnet_config, derive_from_backbone

FILES = sorted(p.relative_to(CONFIGS).as_posix() for p in pathlib.Path(CONFIGS).rglob("*.yaml"))
COMPLETE = [file for file in FILES if not file.endswith("Base-quick.yaml")]
# What FCOS has no use for; detectron2's defaults describe a C4 model there.
NOT_FCOS = (
    "MODEL.ANCHOR_GENERATOR.",
    "MODEL.RPN.",
    "MODEL.ROI_HEADS.NAME",
    "MODEL.ROI_HEADS.IN_FEATURES",
    "MODEL.ROI_BOX_HEAD.",
)


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def merged(file):
    cfg = get_cfg()
    add_bcnet_config(cfg)
    cfg.merge_from_file(f"{CONFIGS}/{file}")
    if "timm_fpn" in cfg.MODEL.BACKBONE.NAME:
        derive_from_backbone(cfg)  # as the plugin's trainer does, and the engine when it loads a config
    return dict(leaves(cfg))


def test_there_are_configs():
    assert len(COMPLETE) > 15


@pytest.mark.parametrize("file", FILES)
def test_every_file_loads(file):
    assert merged(file)["VERSION"] == 2


@pytest.mark.parametrize("file", COMPLETE)
def test_every_key_of_the_engine_has_the_same_value_in_detectron2(file):
    theirs = merged(file)
    fcos = theirs["MODEL.META_ARCHITECTURE"] == "BCNetFCOS"
    different = {
        key: (value, theirs.get(key, "absent"))
        for key, value in leaves(load_config(f"{CONFIGS}/{file}"))
        if theirs.get(key, "absent") != value and not (fcos and key.startswith(NOT_FCOS))
    }
    assert different == {}


def test_only_keys_that_detectron2_lacks_are_added():
    plain, ours = get_cfg(), get_cfg()
    add_bcnet_config(ours)
    before, after = dict(leaves(plain)), dict(leaves(ours))
    assert {key: after[key] for key in before} == before
    engine = CfgNode(plain)
    add_bcnet_config(engine)
    assert dict(leaves(engine)) == after
