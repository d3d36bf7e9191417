"""Values that change on the way, and files that go there and back."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from checkpoint_samples import caffe2_resnet, randomised, small_model

from bcnet.checkpoint import convert_checkpoint, load_weights, read_checkpoint, to_bcnet, write_checkpoint
from bcnet.checkpoint.convert import COCO_IDS
from bcnet.config import load_config
from bcnet.fcos import level_points
from bcnet.modeling import build_model
from bcnet.modeling.box_branch import BoxHead

ROOT = Path(__file__).parents[2]


# -- Files -------------------------------------------------------------------------------------------------


def outputs(model):
    generator = torch.Generator().manual_seed(3)
    images = [
        torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8) for h, w in ((96, 128), (80, 64))
    ]
    return model.inference(images, with_occluder=True)


def assert_equal_outputs(expected, actual):
    assert sum(map(len, expected)) > 5
    for a, b in zip(expected, actual, strict=True):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores) and torch.equal(a.classes, b.classes)
        assert a.maps.keys() == b.maps.keys()
        assert all(torch.equal(values, b.maps[name]) for name, values in a.maps.items())


@pytest.mark.parametrize("config", ["bcnet_faster_rcnn", "bcnet_fcos", "mask_rcnn", "fcos"])
def test_a_saved_model_converts_both_ways_bit_for_bit(tmp_path, config):
    options = [
        *("MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "MODEL.FCOS.SCORE_THRESH_TEST", 0.0),
        *("TEST.DETECTIONS_PER_IMAGE", 10),
    ]
    cfg = load_config(str(ROOT / "configs/quick" / f"{config}.yaml"), options)
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    expected = outputs(model)
    saved = str(tmp_path / "model_final.pth")
    write_checkpoint({"model": model.state_dict(), "class_names": list("abcdef"), "iteration": 3}, saved)

    paths = {name: str(tmp_path / name) for name in ("d2.pth", "back.safetensors", "d2.safetensors", "back.pth")}
    convert_checkpoint(saved, paths["d2.pth"], "detectron2")
    convert_checkpoint(paths["d2.pth"], paths["back.safetensors"])
    convert_checkpoint(paths["back.safetensors"], paths["d2.safetensors"], "detectron2")
    convert_checkpoint(paths["d2.safetensors"], paths["back.pth"])
    loaded = build_model(cfg)
    for path in (saved, *paths.values()):
        for value in loaded.state_dict().values():
            value.zero_()
        report = load_weights(loaded, path)
        assert not report.differs and not report.skipped and not report.warnings
        assert loaded.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    assert_equal_outputs(expected, outputs(loaded))
    content = read_checkpoint(paths["d2.pth"])
    assert set(content) == {"model", "class_names"}
    assert "backbone.bottom_up.stem.conv1.weight" in content["model"]


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "tools/convert_checkpoint.py"), run_name="__main__")


def test_command_line(tmp_path, monkeypatch, capsys):
    state = {"model": {**small_model().state_dict()}}
    write_checkpoint(state, str(tmp_path / "a.pth"))
    run_tool(monkeypatch, "--input", tmp_path / "a.pth", "--output", tmp_path / "b.pth", "--to", "detectron2")
    printed = capsys.readouterr().out
    assert f"a.pth (bcnet) -> {tmp_path / 'b.pth'}: {len(state['model'])} tensors written, 0 skipped" in printed
    run_tool(monkeypatch, "--input", tmp_path / "b.pth", "--output", tmp_path / "c.safetensors")
    assert "backbone.bottom_up.*" in capsys.readouterr().out
    read = read_checkpoint(str(tmp_path / "c.safetensors"))["model"]
    assert all(torch.equal(read[key], value) for key, value in state["model"].items())


@pytest.mark.parametrize(
    ("input", "output", "message"),
    [
        ("a.pth", "b.pkl", r"written as \.pth or \.safetensors"),
        ("a.pth", "a.pth", "would overwrite itself"),
        ("none.pth", "b.pth", "checkpoint not found"),
        ("text.pth", "b.pth", "cannot be read"),
        ("unknown.pth", "b.pth", "do not belong to any known model"),
    ],
)
def test_command_line_errors(tmp_path, monkeypatch, capsys, input, output, message):
    write_checkpoint({"model": small_model().state_dict()}, str(tmp_path / "a.pth"))
    write_checkpoint({"model": {"x": torch.zeros(1)}}, str(tmp_path / "unknown.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(SystemExit) as ended:
        run_tool(monkeypatch, "--input", tmp_path / input, "--output", tmp_path / output)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(message, error)
    assert not (tmp_path / "b.pth").exists()


def test_unknown_target(tmp_path):
    with pytest.raises(ValueError, match="'bcnet' or 'detectron2', got 'caffe2'"):
        convert_checkpoint("a.pth", str(tmp_path / "b.pth"), "caffe2")


# -- Caffe2 ------------------------------------------------------------------------------------------------


def test_merged_statistics_become_mean_0_and_variance_1():
    state = caffe2_resnet(merged=True)
    conversion = to_bcnet(state)
    ours = conversion.state
    prefix = "backbone.resnet.layer2.0."
    assert torch.equal(ours[prefix + "downsample.0.weight"], state["res3_0_branch1_w"])
    assert torch.equal(ours[prefix + "bn2.weight"], state["res3_0_branch2b_bn_s"])
    assert torch.equal(ours[prefix + "bn3.bias"], state["res3_0_branch2c_bn_b"])
    assert torch.equal(ours[prefix + "bn2.running_mean"], torch.zeros(128))
    assert torch.equal(ours["backbone.resnet.bn1.running_var"], torch.ones(64))
    assert conversion.sources["backbone.resnet.bn1.running_var"] == ""


def test_statistics_of_the_file_stay():
    state = caffe2_resnet(merged=False)
    ours = to_bcnet(state).state
    assert torch.equal(ours["backbone.resnet.bn1.running_mean"], state["res_conv1_bn_running_mean"])
    assert torch.equal(ours["backbone.resnet.layer4.2.bn3.running_var"], state["res5_2_branch2c_bn_running_var"])
    assert torch.equal(ours["backbone.resnet.layer1.0.downsample.1.weight"], state["res2_0_branch1_bn_gamma"])


# -- torchvision -------------------------------------------------------------------------------------------


def torchvision_heads(outputs):
    """A file's predictors; the values say which output and which of its rows."""
    rows = torch.arange(float(outputs))
    return {
        "backbone.body.conv1.weight": torch.zeros(64, 3, 7, 7),
        "rpn.head.cls_logits.bias": torch.arange(3.0),
        "rpn.head.bbox_pred.bias": torch.arange(12.0),
        "roi_heads.box_predictor.cls_score.weight": rows[:, None].expand(outputs, 8),
        "roi_heads.box_predictor.cls_score.bias": rows,
        "roi_heads.box_predictor.bbox_pred.bias": (rows[:, None] + torch.arange(4) / 10).reshape(-1),
        "roi_heads.mask_predictor.conv5_mask.bias": torch.arange(float(outputs)),
        "roi_heads.mask_predictor.mask_fcn_logits.bias": rows,
    }


@pytest.mark.parametrize(
    ("outputs", "num_classes", "kept"),
    [
        (91, 80, COCO_IDS),
        (91, None, COCO_IDS),
        (91, 7, COCO_IDS),  # then reported as another number of classes
        (91, 90, list(range(1, 91))),
        (4, 3, [1, 2, 3]),
        (4, None, [1, 2, 3]),
    ],
)
def test_background_and_unused_ids(outputs, num_classes, kept):
    ours = to_bcnet(torchvision_heads(outputs), num_classes=num_classes).state
    assert ours["box_branch.head.cls_score.bias"].tolist() == [*kept, 0]
    assert ours["box_branch.head.cls_score.weight"][:, 5].tolist() == [*kept, 0]
    assert ours["mask_branch.head.mask.predictor.bias"].tolist() == kept
    assert ours["mask_branch.head.mask.deconv.bias"].tolist() == list(range(outputs))
    assert ours["rpn.head.cls_logits.bias"].tolist() == [0, 1, 2]
    assert ours["rpn.head.bbox_pred.bias"].tolist() == list(range(12))
    expected = torch.tensor([[i, i + 0.1, i + 0.2, i + 0.3] for i in kept])
    torch.testing.assert_close(ours["box_branch.head.bbox_pred.bias"], expected.reshape(-1))


def test_coco_ids():
    assert len(COCO_IDS) == 80
    assert COCO_IDS[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13] and COCO_IDS[-1] == 90
    meta = torchvision.models.detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert [i for i, name in enumerate(meta) if name not in ("__background__", "N/A")] == COCO_IDS


def test_torchvision_box_head_gives_its_numbers():
    theirs = randomised(torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None))
    ours = to_bcnet(theirs.state_dict()).state
    head = BoxHead(256 * 49, 80, num_fc=2, fc_dim=1024, class_agnostic=False)
    prefix = "box_branch.head."
    head.load_state_dict({k.removeprefix(prefix): v for k, v in ours.items() if k.startswith(prefix)})
    pooled = torch.randn(3, 256, 7, 7)
    with torch.no_grad():
        logits, deltas = head(pooled)
        expected_logits, expected_deltas = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(pooled))
    torch.testing.assert_close(logits, expected_logits[:, [*COCO_IDS, 0]])
    torch.testing.assert_close(deltas, expected_deltas.view(3, 91, 4)[:, COCO_IDS].flatten(1))


def test_torchvision_fcos_gives_its_numbers():
    torch.manual_seed(0)
    theirs = randomised(torchvision.models.detection.fcos_resnet50_fpn(weights=None, weights_backbone=None))
    with torch.no_grad():
        theirs.head.regression_head.bbox_reg.bias.fill_(4.0)  # every side more than half a stride away
    cfg = load_config(
        str(ROOT / "configs/baselines/fcos_R_50_FPN.yaml"), ["MODEL.DEVICE", "cpu", "MODEL.MASK_ON", False]
    )
    model = build_model(cfg).eval()
    ours = to_bcnet(theirs.state_dict(), num_classes=80).state
    prefix = "head."
    model.head.load_state_dict({k.removeprefix(prefix): v for k, v in ours.items() if k.startswith(prefix)})

    features = [torch.randn(1, 256, 2 ** (5 - level), 2 ** (5 - level)) for level in range(5)]
    images = torchvision.models.detection.image_list.ImageList(torch.zeros(1, 3, 256, 256), [(256, 256)])
    with torch.no_grad():
        expected = theirs.head(features)
        anchors = theirs.anchor_generator(images, features)[0]
        expected_boxes = theirs.head.box_coder.decode(expected["bbox_regression"][0], anchors)
        output = model.head(features)
    torch.testing.assert_close(output.logits, expected["cls_logits"][..., COCO_IDS])
    torch.testing.assert_close(output.centerness, expected["bbox_ctrness"][..., 0])
    assert float(output.distances.min()) > 0.5
    strides = (8, 16, 32, 64, 128)
    points = [level_points(*f.shape[-2:], stride) for f, stride in zip(features, strides, strict=True)]
    scale = torch.cat([torch.full((len(p), 1), float(s)) for p, s in zip(points, strides, strict=True)])
    distances, points = output.distances[0] * scale, torch.cat(points)
    boxes = torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)
    torch.testing.assert_close(boxes, expected_boxes, rtol=1e-5, atol=1e-3)
