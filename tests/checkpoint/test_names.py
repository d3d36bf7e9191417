"""Key sets in both directions: nothing missing, nothing left over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from checkpoint_samples import caffe2_resnet, small_model

from bcnet.checkpoint import names, to_bcnet, to_detectron2
from bcnet.config import load_config
from bcnet.modeling import build_model
from bcnet.modeling.resnet_checkpoints import first_stage

ROOT = Path(__file__).parents[2]
COUNTER = ".num_batches_tracked"


def reference_state(name):
    keys = json.loads((ROOT / "tests/golden" / f"{name}_keys.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in keys.items()}


def engine_shapes(config):
    model = build_model(load_config(str(ROOT / "configs" / config), ["MODEL.DEVICE", "cpu"]))
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def shapes(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def test_published_fcos():
    state = reference_state("fcos_R_50")
    assert names.recognise(state) == names.PUBLISHED
    conversion = to_bcnet(state)
    assert conversion.left_out == []
    assert shapes(conversion.state) == engine_shapes("fcos/fcos_imprv_R_50_FPN.yaml")
    # And the way back.
    renamer = names.renamer(names.PUBLISHED, conversion.state)
    assert {renamer.from_ours(key): value for key, value in shapes(conversion.state).items()} == shapes(state)


def test_detectron2_mask_rcnn():
    state = reference_state("mask_rcnn_R_50")
    assert names.recognise(state) == names.DETECTRON2
    conversion = to_bcnet(state)
    assert conversion.left_out == []
    assert shapes(conversion.state) == engine_shapes("baselines/mask_rcnn_R_50_FPN_3x.yaml")
    assert shapes(to_detectron2(conversion.state)) == shapes(state)


def test_constants_of_older_detectron2_files_are_no_weights():
    state = reference_state("mask_rcnn_R_50")
    constants = {"pixel_mean", "pixel_std", "proposal_generator.anchor_generator.cell_anchors.0"}
    conversion = to_bcnet({**state, **{key: torch.zeros(3) for key in constants}})
    assert {entry.key for entry in conversion.left_out} == constants
    assert all(entry.harmless for entry in conversion.left_out)


@pytest.mark.parametrize("meta_architecture", ["GeneralizedRCNN", "BCNetFCOS"])
@pytest.mark.parametrize("head", ["BilayerMaskHead", "MaskRCNNConvUpsampleHead"])
@pytest.mark.parametrize("mask_on", [True, False])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_ours_to_detectron2_and_back(meta_architecture, head, mask_on, norm):
    model = small_model(
        meta_architecture, MODEL__ROI_MASK_HEAD__NAME=head, MODEL__MASK_ON=mask_on, MODEL__RESNETS__NORM=norm
    )
    state = model.state_dict()
    theirs = to_detectron2(state)
    assert len(theirs) == len(state)
    assert names.recognise(theirs) == names.DETECTRON2
    mask = "roi_heads.mask_head." if meta_architecture == "GeneralizedRCNN" else "mask_head."
    expected = {"BilayerMaskHead": f"{mask}occludee_layer.gcn.query.weight"}.get(head, f"{mask}mask_fcn4.bias")
    assert (expected in theirs) == mask_on
    back = to_bcnet(theirs)
    assert back.left_out == []
    assert back.state.keys() == state.keys()
    assert all(back.state[key] is value for key, value in state.items())


def test_a_plain_head_with_a_boundary_to_detectron2_and_back():
    state = small_model(MODEL__ROI_MASK_HEAD__NAME="PlainMaskHead", MODEL__ROI_MASK_HEAD__BOUNDARY=True).state_dict()
    theirs = to_detectron2(state)
    assert {"mask_head.mask_fcn4.bias", "mask_head.deconv.weight", "mask_head.boundary.deconv.weight"} < theirs.keys()
    back = to_bcnet(theirs)
    assert back.state.keys() == state.keys() and back.left_out == []


def test_the_head_with_a_side_branch_to_detectron2_and_back():
    changes = {"MODEL__ROI_MASK_HEAD__NAME": "SideBranchMaskHead", "MODEL__BILAYER__AMODAL": True}
    state = small_model(**changes).state_dict()
    theirs = to_detectron2(state)
    assert {"mask_head.branch_gcn.query.weight", "mask_head.occludee_amodal.deconv.weight"} < theirs.keys()
    back = to_bcnet(theirs)
    assert back.state.keys() == state.keys() and back.left_out == []


def test_detectron2_names_of_each_part():
    theirs = to_detectron2(small_model().state_dict())
    for key in (
        "backbone.bottom_up.stem.conv1.weight",
        "backbone.bottom_up.stem.conv1.norm.running_var",
        "backbone.bottom_up.res3.0.shortcut.norm.bias",
        "backbone.bottom_up.res5.1.conv2.norm.weight",
        "backbone.fpn_lateral3.weight",
        "backbone.fpn_output5.bias",
        "backbone.top_block.p7.weight",
        "head.cls_tower.0.weight",
        "head.scales.4",
        "mask_head.occluder_boundary.predictor.bias",
    ):
        assert key in theirs
    assert "backbone.fpn_lateral2.weight" not in theirs
    with pytest.raises(ValueError, match="1 tensors have no detectron2 name: decoder"):
        to_detectron2({"backbone.resnet.conv1.weight": torch.zeros(1), "decoder": torch.zeros(1)})


@pytest.mark.parametrize(
    ("builder", "config"),
    [
        (torchvision.models.detection.maskrcnn_resnet50_fpn, "baselines/mask_rcnn_R_50_FPN_3x.yaml"),
        (torchvision.models.detection.fcos_resnet50_fpn, "baselines/fcos_R_50_FPN.yaml"),
    ],
)
def test_torchvision_detectors(builder, config):
    state = builder(weights=None, weights_backbone=None).state_dict()
    assert names.recognise(state) == names.TORCHVISION
    conversion = to_bcnet(state)
    assert conversion.left_out == []
    found = {key: shape for key, shape in shapes(conversion.state).items() if not key.endswith(COUNTER)}
    expected = engine_shapes(config)
    if "fcos" in config:  # which has no masks there
        expected = {key: shape for key, shape in expected.items() if not key.startswith("mask_branch.")}
    assert found == expected


def test_torchvision_names_of_older_files():
    state = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    older = {}
    for key, value in state.items():
        for block in ("inner_blocks", "layer_blocks"):
            for level in range(4):
                key = key.replace(f"{block}.{level}.0.", f"{block}.{level}.")
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for i in range(4):
            key = key.replace(f"roi_heads.mask_head.{i}.0.", f"roi_heads.mask_head.mask_fcn{i + 1}.")
        older[key] = value
    assert len(older.keys() - state.keys()) == 16 + 2 + 8
    conversion = to_bcnet(older)
    assert conversion.left_out == []
    assert shapes(conversion.state) == shapes(to_bcnet(state).state)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext101_32x8d"])
def test_torchvision_classification(name):
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
    assert names.recognise(state) == names.TORCHVISION_BACKBONE
    conversion = to_bcnet(state)
    assert {(entry.key, entry.reason) for entry in conversion.left_out} == {
        ("fc.weight", "ImageNet classifier"),
        ("fc.bias", "ImageNet classifier"),
    }
    assert conversion.state.keys() == {f"backbone.resnet.{key}" for key in state if not key.startswith("fc.")}


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("depth", [50, 101])
def test_caffe2_resnets(depth, merged):
    state = caffe2_resnet(depth, merged=merged)
    assert names.recognise(state) == names.CAFFE2
    conversion = to_bcnet({**state, "res2_0_branch2a_w_momentum": torch.zeros(1), "lr": torch.zeros(1)})
    assert {entry.key for entry in conversion.left_out} == {
        "pred_w",
        "pred_b",
        "conv1_b",
        "lr",
        "res2_0_branch2a_w_momentum",
    }
    with torch.device("meta"):
        resnet = torchvision.models.get_model(f"resnet{depth}").state_dict()
    expected = {f"backbone.resnet.{k}": tuple(v.shape) for k, v in resnet.items() if not k.startswith("fc.")}
    assert shapes(conversion.state) == {k: v for k, v in expected.items() if not k.endswith(COUNTER)}


def test_backbone_alone_with_detectron2_names():
    # As detectron2's convert-torchvision-to-d2.py writes them.
    model = small_model(MODEL__RESNETS__DEPTH=50)
    whole = {k: v for k, v in model.state_dict().items() if k.startswith("backbone.resnet.")}
    theirs = {k.removeprefix("backbone.bottom_up."): v for k, v in to_detectron2(whole).items()}
    theirs["stem.fc.weight"] = torch.zeros(1000, 2048)
    assert names.recognise(theirs) == names.DETECTRON2_BACKBONE
    conversion = to_bcnet(theirs)
    assert [entry.key for entry in conversion.left_out] == ["stem.fc.weight"]
    assert conversion.state.keys() == whole.keys()


def test_levels_follow_the_finest_one_of_the_file():
    assert first_stage(["backbone.fpn_lateral3.weight", "backbone.fpn_lateral5.weight"]) == 3
    assert first_stage([f"backbone.fpn.inner_blocks.{i}.0.weight" for i in range(4)]) == 2
    assert first_stage([f"backbone.fpn.inner_blocks.{i}.0.weight" for i in range(3)]) == 3
    assert first_stage(["backbone.resnet.conv1.weight"]) is None


def test_unknown_names():
    with pytest.raises(names.UnknownNamesError, match=r"2 tensors \(blocks\.0\.attn, cls_token, \.\.\.\).*detectron2"):
        to_bcnet({"cls_token": torch.zeros(1), "blocks.0.attn": torch.zeros(1)})
    with pytest.raises(ValueError, match="maskrcnn_resnet50_fpn_v2"):
        to_bcnet({"backbone.body.conv1.weight": torch.zeros(1), "backbone.fpn.inner_blocks.0.1.weight": torch.zeros(1)})
    with torch.device("meta"):
        v2 = torchvision.models.detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    with pytest.raises(ValueError, match="maskrcnn_resnet50_fpn_v2"):
        to_bcnet(v2.state_dict())


def test_rules_read_both_ways():
    renamer = names.Renamer([("a{i}.x{j}.*", "b{i+2}_{j}.*"), ("keep.**", "kept.**")])
    assert renamer.from_ours("a1.x7.weight") == "b3_7.weight"
    assert renamer.to_ours("b3_7.weight") == "a1.x7.weight"
    assert renamer.to_ours("b1_7.weight") is None  # a number below zero
    assert renamer.from_ours("a1.x7.norm.weight") is None  # * stands for one name
    assert renamer.from_ours("keep.a.b") == "kept.a.b"
    assert renamer.to_ours("other") is None
