"""Components by name: what there is, unknown names, and components of another package."""

from __future__ import annotations

import inspect

import pytest
import torch
from small_models import DETECTORS, small_config
from torch import nn

from bcnet.config import load_config
from bcnet.modeling import (
    BACKBONE_REGISTRY,
    DETECTOR_REGISTRY,
    FCOS,
    MASK_HEAD_REGISTRY,
    Backbone,
    FasterRCNN,
    ResNetFPN,
    build_backbone,
    build_mask_head,
    build_model,
)
from bcnet.modeling.registry import level_strides
from bcnet.registry import Registry

KEYS = {
    "MODEL.META_ARCHITECTURE": "'BCNetFCOS', 'BoxPrompted', 'GeneralizedRCNN'",
    "MODEL.BACKBONE.NAME": "'build_bcnet_fcos_resnet_fpn_backbone', 'build_bcnet_fcos_timm_fpn_backbone', "
    "'build_resnet_fpn_backbone', 'build_timm_fpn_backbone'",
    "MODEL.ROI_MASK_HEAD.NAME": "'BilayerMaskHead', 'MaskRCNNConvUpsampleHead', 'PlainMaskHead', 'SideBranchMaskHead'",
}


@pytest.fixture
def registry(monkeypatch):
    """Components registered in a test are gone after it, and those of other packages are not there."""
    for registry in (BACKBONE_REGISTRY, DETECTOR_REGISTRY, MASK_HEAD_REGISTRY):
        own = {name: component for name, component in registry._obj_map.items() if component.__module__[:6] == "bcnet."}
        monkeypatch.setattr(registry, "_obj_map", own)


class OneConvolution(nn.Module):
    """The smallest backbone: two levels of strides 16 and 32."""

    size_divisibility = 32

    def __init__(self, channels):
        super().__init__()
        self.strides = {"a": 16, "b": 32}
        self.out_channels = channels
        self.conv = nn.Conv2d(3, channels, kernel_size=16, stride=16)

    @classmethod
    def from_config(cls, cfg):
        return cls(cfg.MODEL.FPN.OUT_CHANNELS)

    def forward(self, images):
        a = self.conv(images)
        return {"a": a, "b": nn.functional.max_pool2d(a, 2)}


def own_backbone_config(**overrides):
    levels = "['a', 'b']"
    return small_config(
        MODEL__BACKBONE__NAME="OneConvolution",
        MODEL__RPN__IN_FEATURES=levels,
        MODEL__ROI_HEADS__IN_FEATURES=levels,
        MODEL__ANCHOR_GENERATOR__SIZES="[[16], [32]]",
        **overrides,
    )


@pytest.mark.parametrize(("key", "names"), KEYS.items())
def test_an_unknown_name_lists_what_there_is(registry, key, names):
    with pytest.raises(ValueError, match=f"{key} is 'Other'; registered are {names} .*--import MODULE"):
        load_config(opts=[key, "Other"])


@pytest.mark.parametrize(("key", "names"), KEYS.items())
def test_a_name_that_was_never_validated_builds_nothing(registry, key, names):
    """An unknown mask head once built the plain head."""
    with pytest.raises(ValueError, match=f"{key} is 'Other'; registered are {names}"):
        build_model(small_config(**{key.replace(".", "__"): "Other"}))
    with pytest.raises(ValueError, match=r"MODEL\.ROI_MASK_HEAD\.NAME is 'Other'"):
        build_mask_head(small_config(MODEL__ROI_MASK_HEAD__NAME="Other"), 32)


def test_a_backbone_of_another_package_trains_and_detects(registry):
    BACKBONE_REGISTRY.register(OneConvolution)
    cfg = own_backbone_config()
    model = build_model(cfg)
    assert isinstance(model.backbone, OneConvolution) and isinstance(model.backbone, Backbone)
    (detections,) = model.inference([torch.zeros(3, 40, 64, dtype=torch.uint8)])
    assert len(detections) <= cfg.TEST.DETECTIONS_PER_IMAGE
    with pytest.raises(ValueError, match=r"MODEL\.RPN\.IN_FEATURES is \['p2'\]; OneConvolution has the levels a, b"):
        level_strides(model.backbone, ["p2"], "MODEL.RPN.IN_FEATURES")


def test_what_is_no_backbone_is_named(registry):
    class NoStrides(nn.Module):
        out_channels = 8
        from_config = classmethod(lambda cls, cfg: cls())

    BACKBONE_REGISTRY.register(NoStrides)
    with pytest.raises(TypeError, match=r"'NoStrides' is not a backbone: .* without strides, size_divisibility"):
        build_backbone(small_config(MODEL__BACKBONE__NAME="NoStrides"))


def test_norm_groups_that_do_not_divide_the_channels_are_named():
    overrides = {"MODEL__META_ARCHITECTURE": "BCNetFCOS", "MODEL__FCOS__NORM_GROUPS": 7}
    with pytest.raises(ValueError, match=r"MODEL\.FCOS\.NORM_GROUPS is 7 and does not divide the 32 channels"):
        build_model(small_config("BCNetFCOS", **overrides))


def test_a_name_is_registered_once(registry):
    with pytest.raises(AssertionError, match="BilayerMaskHead"):
        MASK_HEAD_REGISTRY.register(OneConvolution, name="BilayerMaskHead")


def test_registered_under_another_name():
    shapes = Registry("SHAPE", key="--shape", kind="shape")

    @shapes.register(name="round")
    def circle(): ...

    shapes.register(inspect)  # any object with a name
    assert shapes.names() == ["inspect", "round"] and shapes.get("round") is circle
    with pytest.raises(ValueError, match=r"--shape is 'circle'; registered are 'inspect', 'round' .a shape of another"):
        shapes.get("circle")


def test_detectors_spell_out_their_keywords():
    for detector in (FasterRCNN, FCOS):
        parameters = list(inspect.signature(detector.__init__).parameters.values())[1:]
        assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
        assert {"backbone", "mask_branch", "num_classes", "pixel_mean"} <= {parameter.name for parameter in parameters}


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_backbones_level_that_a_config_names_must_exist(detector):
    section = {"GeneralizedRCNN": "RPN", "BCNetFCOS": "FCOS"}[detector]
    cfg = small_config(detector, **{f"MODEL__{section}__IN_FEATURES": "['p3', 'p9']"})
    with pytest.raises(ValueError, match=rf"MODEL\.{section}\.IN_FEATURES .* has the levels .* and no p9"):
        build_model(cfg)


def test_the_name_of_the_backbone_decides_its_last_levels():
    """As in detectron2: without the convolutions of P6 and P7 there is P6 alone, a subsampled P5."""
    cfg = small_config("BCNetFCOS", MODEL__BACKBONE__NAME="build_resnet_fpn_backbone")
    backbone = build_backbone(cfg)
    assert type(backbone) is ResNetFPN and list(backbone.strides) == ["p3", "p4", "p5", "p6"]
    with pytest.raises(ValueError, match=r"MODEL\.FCOS\.IN_FEATURES is .* has the levels p3, p4, p5, p6 and no p7"):
        build_model(cfg)


@pytest.mark.parametrize("name", ["MaskRCNNConvUpsampleHead", "PlainMaskHead"])
def test_the_plain_heads_boundary_is_a_key_of_the_config(name):
    keys = {"MODEL__ROI_MASK_HEAD__NAME": name, "MODEL__ROI_MASK_HEAD__NUM_CONV": 8}
    without = build_mask_head(small_config(**keys), 32)
    head = build_mask_head(small_config(**keys, MODEL__ROI_MASK_HEAD__BOUNDARY=True), 32)
    assert [spec.name for spec in without.maps] == ["occludee_mask"]
    assert [spec.name for spec in head.maps] == ["occludee_mask", "occludee_boundary"]
    assert len(head.layer.convs) == 8


def test_a_plain_head_without_convolutions_keeps_the_channels():
    plain = {"MODEL__ROI_MASK_HEAD__NAME": "MaskRCNNConvUpsampleHead", "MODEL__ROI_MASK_HEAD__NUM_CONV": 0}
    head = build_mask_head(small_config(**plain), 32)
    assert len(head.layer.convs) == 0
    with pytest.raises(ValueError, match="NUM_CONV is 0: its CONV_DIM must be 64 like the pooled features, got 32"):
        build_mask_head(small_config(**plain), 64)
