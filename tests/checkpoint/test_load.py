"""What `load_weights` loads, keeps, reports and refuses."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch
from checkpoint_samples import caffe2_resnet, small_model
from torch import nn

from bcnet.checkpoint import load_weights, to_bcnet, to_detectron2, write_weights
from bcnet.modeling.backbone import build_resnet
from bcnet.modeling.resnet_checkpoints import settings_warnings

FCOS, FASTER_RCNN = "BCNetFCOS", "GeneralizedRCNN"
PLAIN = {"MODEL__ROI_MASK_HEAD__NAME": "MaskRCNNConvUpsampleHead"}


@pytest.fixture
def saved(tmp_path):
    def save(state, name="model.pth"):
        path = str(tmp_path / name)
        state = state.state_dict() if isinstance(state, nn.Module) else state
        if name.endswith(".pkl"):
            content = {"model": {k: v.numpy() for k, v in state.items()}, "__author__": "Detectron2 Model Zoo"}
            (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
        else:
            write_weights(state, path)
        return path

    return save


def snapshot(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_unchanged(model, before):
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("meta_architecture", [FCOS, FASTER_RCNN])
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "zoo.pkl"])
def test_everything_fits(saved, meta_architecture, name, caplog):
    source, model = small_model(meta_architecture, seed=1), small_model(meta_architecture, seed=2)
    state = to_detectron2(source.state_dict()) if name == "zoo.pkl" else source.state_dict()
    caplog.set_level(logging.INFO)
    report = load_weights(model, saved(state, name))
    assert not report.differs
    assert report.loaded.keys() == model.state_dict().keys()
    assert_unchanged(model, source.state_dict())
    count = len(model.state_dict())
    assert f"{count} of the model's {count} tensors loaded, 0 reshaped, 0 missing; 0 of the file skipped" in caplog.text
    assert [record.levelname for record in caplog.records if record.name == "bcnet.checkpoint.load"] == ["INFO"]


def test_another_number_of_classes(saved, caplog):
    source = small_model(FASTER_RCNN, MODEL__ROI_HEADS__NUM_CLASSES=5, MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK=False)
    model = small_model(FASTER_RCNN, MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK=False, seed=1)
    before = snapshot(model)
    path = saved(source)
    with pytest.raises(ValueError, match="do not fit the model"):
        load_weights(model, path)
    assert_unchanged(model, before)

    report = load_weights(model, path, strict=False)
    predictors = {"box_branch.head.cls_score", "box_branch.head.bbox_pred"} | {
        f"mask_branch.head.{layer}_{kind}.predictor"
        for layer in ("occludee", "occluder")
        for kind in ("mask", "boundary")
    }
    assert report.reshaped.keys() == {f"{name}.{leaf}" for name in predictors for leaf in ("weight", "bias")}
    assert report.reshaped["box_branch.head.cls_score.weight"] == ((6, 32), (4, 32))
    assert report.missing == [] and report.skipped == []
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in report.reshaped else source.state_dict()[key])
    assert "box_branch.head.cls_score.weight [4, 32]" in caplog.text and "[6, 32]: re-initialised" in caplog.text


def test_another_number_of_classes_of_fcos(saved):
    model = small_model(FCOS, seed=1)
    report = load_weights(model, saved(small_model(FCOS, MODEL__ROI_HEADS__NUM_CLASSES=5)), strict=False)
    assert report.reshaped.keys() == {"head.cls_logits.weight", "head.cls_logits.bias"}
    assert report.missing == []


@pytest.mark.parametrize("agnostic", [True, False])
def test_a_plain_zoo_model_initialises_the_bilayer_model(saved, agnostic):
    zoo = small_model(FASTER_RCNN, MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK=False, **PLAIN)
    model = small_model(FASTER_RCNN, MODEL__ROI_MASK_HEAD__CLS_AGNOSTIC_MASK=agnostic, seed=1)
    before = snapshot(model)
    report = load_weights(model, saved(to_detectron2(zoo.state_dict()), "zoo.pkl"), strict=False)
    assert report.skipped == []
    own, theirs = model.state_dict(), zoo.state_dict()
    head = "mask_branch.head."
    for key, value in own.items():
        if not key.startswith(head):
            assert torch.equal(value, theirs[key]), key
    for i in range(4):
        assert torch.equal(own[f"{head}occludee_layer.convs.{i}.weight"], theirs[f"{head}layer.convs.{i}.weight"])
        assert report.loaded[f"{head}occludee_layer.convs.{i}.bias"] == f"roi_heads.mask_head.mask_fcn{i + 1}.bias"
    assert torch.equal(own[f"{head}occludee_mask.deconv.weight"], theirs[f"{head}mask.deconv.weight"])
    predictor = f"{head}occludee_mask.predictor.weight"
    if agnostic:
        assert report.reshaped[predictor] == ((3, 16, 1, 1), (1, 16, 1, 1))
        assert torch.equal(own[predictor], before[predictor])
    else:
        assert report.reshaped == {}
        assert torch.equal(own[predictor], theirs[f"{head}mask.predictor.weight"])
    new = ("occluder_layer.", "occluder_mask.", "occluder_boundary.", "occludee_boundary.", "occludee_layer.gcn.")
    assert all(key.startswith(tuple(head + part for part in new)) for key in report.missing)
    assert {key for key in own if key not in report.loaded} - set(report.reshaped) >= set(report.missing)
    assert all(torch.equal(own[key], before[key]) for key in report.missing)


def test_a_bilayer_file_does_not_evaluate_as_a_plain_model(saved):
    with pytest.raises(ValueError, match="do not fit the model"):
        load_weights(small_model(FCOS, **PLAIN), saved(small_model(FCOS)))


def test_a_plain_head_with_a_boundary_initialises_both_maps_of_the_occludee(saved):
    plain = small_model(FASTER_RCNN, MODEL__ROI_MASK_HEAD__BOUNDARY=True, **PLAIN)
    model = small_model(FASTER_RCNN, seed=1)
    assert load_weights(model, saved(plain), strict=False).skipped == []
    own, theirs = model.mask_branch.head, plain.mask_branch.head
    assert torch.equal(own.occludee_boundary.predictor.weight, theirs.boundary.predictor.weight)
    assert torch.equal(own.occludee_mask.predictor.weight, theirs.mask.predictor.weight)


@pytest.mark.parametrize("num_conv", [4, 8])
def test_a_plain_head_initialises_the_visible_masks_of_the_head_with_a_side_branch(saved, num_conv):
    changes = {"MODEL__ROI_MASK_HEAD__BOUNDARY": True, "MODEL__ROI_MASK_HEAD__NUM_CONV": num_conv, **PLAIN}
    plain = small_model(FASTER_RCNN, **changes)
    model = small_model(FASTER_RCNN, seed=1, MODEL__ROI_MASK_HEAD__NAME="SideBranchMaskHead")
    before = snapshot(model)
    report = load_weights(model, saved(to_detectron2(plain.state_dict()), "plain.pkl"), strict=False)
    assert report.skipped == []
    own, theirs = model.mask_branch.head, plain.mask_branch.head
    for index in range(8):
        conv = (own.shared_layer, own.visible_layer)[index // 4].convs[index % 4]  # the fifth visible one is new
        expected = theirs.layer.convs[index].weight if index < num_conv else None
        name = f"mask_branch.head.visible_layer.convs.{index % 4}.weight"
        assert torch.equal(conv.weight, before[name] if expected is None else expected), index
    assert torch.equal(own.occludee_mask.predictor.weight, theirs.mask.predictor.weight)
    assert torch.equal(own.occludee_boundary.deconv.weight, theirs.boundary.deconv.weight)
    new = "visible_layer." if num_conv == 4 else "visible_layer.convs.4."
    branch = ("branch_layer.", "branch_gcn.", "occluder_mask.", new)
    assert all(key.startswith(tuple(f"mask_branch.head.{part}" for part in branch)) for key in report.missing)


@pytest.mark.parametrize("key", ["MODEL__BILAYER__GCN", "MODEL__BILAYER__BOUNDARY"])
def test_what_the_model_lacks_is_an_error_where_it_changes_numbers(saved, key):
    with pytest.raises(ValueError, match="no such tensor in the model"):
        load_weights(small_model(FCOS, **{key: False}), saved(small_model(FCOS)))


def test_boxes_alone_from_a_model_with_masks(saved):
    model = small_model(FCOS, MODEL__MASK_ON=False, seed=1)
    report = load_weights(model, saved(small_model(FCOS)))
    assert not report.differs
    assert {entry.reason for entry in report.skipped} == {"the model has no mask branch"}


def test_pyramid_levels_are_matched_by_stage(saved):
    """Faster R-CNN's pyramid begins with stage 2, FCOS's with stage 3."""
    zoo, model = small_model(FASTER_RCNN), small_model(FCOS, seed=1)
    for state in (zoo.state_dict(), to_detectron2(zoo.state_dict())):
        report = load_weights(model, saved(state), strict=False)
        for block in ("inner_blocks", "layer_blocks"):
            for level in range(3):
                assert torch.equal(
                    model.state_dict()[f"backbone.fpn.{block}.{level}.0.weight"],
                    zoo.state_dict()[f"backbone.fpn.{block}.{level + 1}.0.weight"],
                )
        skipped = [entry.key for entry in report.skipped if entry.reason == "the model has no such pyramid level"]
        assert len(skipped) == 4

    fcos, model = small_model(FCOS), small_model(FASTER_RCNN, seed=1)
    report = load_weights(model, saved(fcos), strict=False)
    for level in range(3):
        assert torch.equal(
            model.state_dict()[f"backbone.fpn.layer_blocks.{level + 1}.0.weight"],
            fcos.state_dict()[f"backbone.fpn.layer_blocks.{level}.0.weight"],
        )
    assert "backbone.fpn.layer_blocks.0.0.weight" in report.missing


def test_frozen_and_live_batch_norm(saved):
    live, frozen = (
        small_model(FCOS, MODEL__RESNETS__NORM=norm, MODEL__BACKBONE__FREEZE_AT=0) for norm in ("BN", "FrozenBN")
    )
    report = load_weights(frozen, saved(live))
    assert {entry.reason for entry in report.skipped} == {"the model's BatchNorm is frozen and has no counter"}
    assert not load_weights(live, saved(frozen)).differs


def test_counters_of_layers_that_the_model_lacks_are_not_those_of_frozen_ones(saved):
    bilayer, model = small_model(FCOS), small_model(FCOS, MODEL__ROI_MASK_HEAD__NAME="SideBranchMaskHead")
    report = load_weights(model, saved(bilayer), strict=False)
    assert "mask_branch.head.occluder_layer.gcn.norm.num_batches_tracked" in [entry.key for entry in report.skipped]
    assert {entry.reason for entry in report.skipped} == {"no such tensor in the model"}


def test_caffe2_resnet_into_a_detector(saved):
    model = small_model(FCOS, MODEL__RESNETS__DEPTH=50, MODEL__RESNETS__STRIDE_IN_1X1=True)
    state = caffe2_resnet(merged=True)
    report = load_weights(model, saved(state, "R-50.pkl"), strict=False)
    assert report.warnings == []
    assert len(report.loaded) == 265
    assert report.missing and not any(key.startswith("backbone.resnet.") for key in report.missing)
    bn = model.backbone.resnet.layer3[5].bn2
    x = torch.randn(1, 256, 2, 2)
    scale, shift = (state[f"res4_5_branch2b_bn_{leaf}"].view(1, -1, 1, 1) for leaf in ("s", "b"))
    # As in detectron2, the epsilon of the BatchNorm remains.
    torch.testing.assert_close(bn(x), x * scale / (1 + 1e-5) ** 0.5 + shift)


# -- Another architecture ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("in_file", "in_model"), [(34, 18), (18, 34), (18, 50)])
def test_another_resnet(saved, in_file, in_model):
    model = small_model(FCOS, MODEL__RESNETS__DEPTH=in_model, seed=1)
    before = snapshot(model)
    path = saved(small_model(FCOS, MODEL__RESNETS__DEPTH=in_file))
    with pytest.raises(ValueError, match=r"the ResNet of .* is another one|of another architecture"):
        load_weights(model, path, strict=False)
    assert_unchanged(model, before)


def test_another_resnet_by_other_names(saved):
    model = small_model(FCOS, MODEL__RESNETS__DEPTH=50)
    with pytest.raises(ValueError, match=r"(?s)the ResNet of .* is another one.*res4_\*"):
        load_weights(model, saved(caffe2_resnet(101, merged=True)), strict=False)


def test_hardly_anything_fits(saved):
    model = small_model(FASTER_RCNN)
    before = snapshot(model)
    state = {f"mask_branch.head.stage.{i}.weight": torch.zeros(2) for i in range(20)}
    state["rpn.head.bbox_pred.bias"] = torch.zeros(12)
    with pytest.raises(
        ValueError,
        match=r"of another architecture, only 1 of 21 tensors fit the model \(the model's .*, \.\.\. alone; the file's "
        r"mask_branch\.head\.stage\.\* alone\)$",
    ):
        load_weights(model, saved(state), strict=False)
    assert_unchanged(model, before)


def test_unknown_architecture(saved):
    path = saved({"cls_token": torch.zeros(1, 1, 8), "blocks.0.attn.qkv.weight": torch.zeros(24, 8)})
    with pytest.raises(
        ValueError, match=r"model\.pth: the names of these 2 tensors .* do not belong to any known model"
    ):
        load_weights(small_model(), path, strict=False)


def test_modules_of_ones_own(saved):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    assert not load_weights(model, saved(state)).differs
    assert_unchanged(model, state)
    state = {
        "0.weight": torch.ones(3, 2),
        "0.bias": torch.ones(4),
        "1.weight": torch.ones(1, 3),
        "2.bias": torch.ones(1),
    }
    with pytest.raises(ValueError, match="do not fit the model") as caught:
        load_weights(model, saved(state))
    rows = [line.split() for line in str(caught.value).splitlines()[2:]]
    assert rows[1:] == [
        ["loaded", "1", "0.weight", "0.weight"],
        ["loaded", "1", "1.weight", "1.weight"],
        ["reshaped", "1", "0.bias", "[3]", "[4]:", "re-initialised"],
        ["missing", "1", "1.bias", "-:", "stays", "as", "initialised"],
        ["skipped", "1", "-:", "no", "such", "tensor", "in", "the", "model", "2.bias"],
    ]
    with pytest.raises(ValueError, match=r"no tensor of .* fits the model"):
        load_weights(model, saved({"0.weight": torch.ones(9)}), strict=False)


# -- Settings that the names do not show -------------------------------------------------------------------

MSRA = {"stride_in_1x1": True, "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
FAIR_RESNEXT = {"stride_in_1x1": False, "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395]}
TORCHVISION = {"stride_in_1x1": False, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def model_with(*, stride_in_1x1, mean, std, **resnet):
    """What a model shows of its settings."""
    with torch.device("meta"):
        resnet = build_resnet(50, stride_in_1x1=stride_in_1x1, **resnet)
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.resnet = resnet
    model.pixel_mean, model.pixel_std = torch.tensor(mean), torch.tensor(std)
    return model


def resnet_state(prefix, conv2, groups=1):
    """A ResNet as far as its origin shows in it."""
    return {
        f"{prefix}conv1.weight": torch.zeros(64, 3, 7, 7),
        f"{prefix}layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1),
        f"{prefix}{conv2}": torch.zeros(64, 64 // groups, 3, 3),
    }


def settings_named(model, state, author=""):
    """The config keys that the warnings name."""
    found = settings_warnings(model, to_bcnet(state), author)
    return [text.split(": set ")[1].split(" to ")[0] for text in found]


ALL = ["MODEL.RESNETS.STRIDE_IN_1X1", "INPUT.FORMAT", "MODEL.PIXEL_STD"]


def test_settings_of_torchvision_weights():
    for prefix in ("", "backbone.body."):
        state = resnet_state(prefix, "layer1.0.conv2.weight")
        assert settings_named(model_with(**TORCHVISION), state) == []
        assert settings_named(model_with(**MSRA), state) == ALL
        assert settings_named(model_with(**FAIR_RESNEXT), state) == ALL[1:2]


def test_settings_of_caffe2_weights():
    for merged in (True, False):
        state = caffe2_resnet(merged=merged)
        assert settings_named(model_with(**MSRA), state) == []
        assert settings_named(model_with(**TORCHVISION), state) == ALL
        live = settings_named(model_with(**MSRA, norm="BN"), state)
        assert live == (["MODEL.RESNETS.NORM"] if merged else [])


def test_settings_of_the_zoo_are_known_by_its_signature():
    state = to_detectron2(resnet_state("backbone.resnet.", "layer1.0.conv2.weight"))
    assert settings_named(model_with(**TORCHVISION), state) == []  # somebody's model: nothing is known of it
    assert settings_named(model_with(**TORCHVISION), state, "Detectron2 Model Zoo") == ALL
    assert settings_named(model_with(**MSRA), state, "Detectron2 Model Zoo") == []


def test_settings_of_a_resnext():
    state = to_detectron2(resnet_state("backbone.resnet.", "layer1.0.conv2.weight", groups=32))
    assert settings_named(model_with(**FAIR_RESNEXT), state, "Detectron2 Model Zoo") == []
    assert settings_named(model_with(**MSRA), state, "Detectron2 Model Zoo") == [ALL[0], ALL[2]]


def test_basic_blocks_have_no_stride_in_a_1x1():
    state = resnet_state("", "layer1.0.conv2.weight")
    assert settings_warnings(small_model(MODEL__PIXEL_STD=TORCHVISION["std"]), to_bcnet(state), "") != []
    assert "STRIDE" not in str(settings_warnings(small_model(), to_bcnet(state), ""))


def test_warnings_are_in_the_table(saved, caplog):
    prefix = "backbone.resnet."
    state = {k.removeprefix(prefix): v for k, v in small_model().state_dict().items() if k.startswith(prefix)}
    report = load_weights(small_model(seed=1), saved(state), strict=False)
    assert len(report.warnings) == 2
    assert "  warning: these weights take RGB images" in caplog.text
