"""timm backbones in detectron2: the engine's features and losses, weights of all kinds, keys of timm's data config."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)
pytest.importorskip("timm", reason="needs timm: pip install 'bcnet[backbones]'")

import timm
import torch
from detectron2.modeling import build_model as build_detectron2_model
from plugin_samples import (
    FASTER_RCNN,
    FCOS,
    assert_same_losses,
    both_hosts,
    engine_cfg,
    plugin_cfg,
)
from test_plugin_training import arguments, logged
from test_same_numbers import EVERYTHING

from bcnet.checkpoint import load_weights, packaged, write_weights
from bcnet.detectron2 import BCNetCheckpointer, derive_from_backbone
from bcnet.detectron2.train import main, setup
from bcnet.modeling import build_model

NAMES = ("test_convnext", "test_vit")  # small ones: a pyramid of stages, and of the last features
AS_THEY_ARE = ("MODEL.TIMM.DATA_CONFIG", False, "MODEL.BACKBONE.FREEZE_AT", 1)


def backbone(config_file, name=NAMES[0]):
    builder = "build_bcnet_fcos_timm_fpn_backbone" if config_file == FCOS else "build_timm_fpn_backbone"
    return ("MODEL.BACKBONE.NAME", builder, "MODEL.TIMM.NAME", name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_the_same_features_and_losses(config_file, name):
    engine, plugin = both_hosts(config_file, *backbone(config_file, name), *AS_THEY_ARE, *EVERYTHING)
    pixels = torch.rand(1, 3, 64, 96).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected, found = engine.backbone(pixels), plugin.backbone(pixels)
    shapes = plugin.backbone.output_shape()
    assert list(found) == list(expected) == list(shapes)
    for level, features in expected.items():
        assert torch.equal(found[level], features) and shapes[level].channels == features.shape[1]
        assert shapes[level].stride == engine.backbone.strides[level]
    assert_same_losses(engine, plugin)


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_train_save_and_load_in_both_hosts(tmp_path, config_file):
    main(arguments(tmp_path, config_file, *backbone(config_file), *AS_THEY_ARE))
    assert [line["iteration"] for line in logged(tmp_path) if "total_loss" in line] == [0, 1]
    path = str(tmp_path / "output" / "model_final.pth")
    saved = torch.load(path, weights_only=True)["model"]
    opts = ("MODEL.ROI_HEADS.NUM_CLASSES", 3, *backbone(config_file), *AS_THEY_ARE)
    engine, plugin = build_model(engine_cfg(config_file, *opts)), build_detectron2_model(plugin_cfg(config_file, *opts))
    assert not load_weights(engine, path).differs
    BCNetCheckpointer(plugin).load(path)
    assert all(torch.equal(plugin.state_dict()[name], tensor) for name, tensor in saved.items())
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = engine.eval().backbone(pixels), plugin.eval().backbone(pixels)
    for level, features in expected.items():
        torch.testing.assert_close(found[level], features)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_imagenet_weights_of_timm(tmp_path, suffix):
    path = str(tmp_path / f"timm.{suffix}")
    classifier = timm.create_model(NAMES[0]).state_dict()
    write_weights(classifier, path)
    model = build_detectron2_model(plugin_cfg(FASTER_RCNN, *backbone(FASTER_RCNN), *AS_THEY_ARE))
    BCNetCheckpointer(model).load(path)
    trunk = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("backbone.trunk.")}
    assert trunk
    for name, tensor in trunk.items():
        assert torch.equal(tensor, classifier[name.removeprefix("backbone.trunk.")]), name
    other = build_detectron2_model(plugin_cfg(FASTER_RCNN, *backbone(FASTER_RCNN, "test_convnext2"), *AS_THEY_ARE))
    with pytest.raises(ValueError, match=r"no tensor of .* fits the model"):
        BCNetCheckpointer(other).load(path)


@pytest.mark.parametrize(("config_file", "place"), [(FASTER_RCNN, "roi_heads.mask_head."), (FCOS, "mask_head.")])
def test_a_packaged_model_starts_a_detector(tmp_path, monkeypatch, config_file, place):
    """Masks in given boxes, as the package has them, with the engine's names."""
    lite = build_model(
        engine_cfg(FASTER_RCNN, *backbone(FASTER_RCNN), *AS_THEY_ARE, "MODEL.META_ARCHITECTURE", "BoxPrompted")
    )
    write_weights(lite.state_dict(), str(tmp_path / "lite.safetensors"))
    monkeypatch.setattr(packaged, "FOLDER", str(tmp_path))
    model = build_detectron2_model(plugin_cfg(config_file, *backbone(config_file), *AS_THEY_ARE))
    BCNetCheckpointer(model).load("lite")
    for ours, theirs in (("mask_branch.head.", place), ("backbone.trunk.", "backbone.trunk.")):
        names = [name for name in lite.state_dict() if name.startswith(ours)]
        assert len(names) > 20
        for name in names:
            assert torch.equal(lite.state_dict()[name], model.state_dict()[theirs + name.removeprefix(ours)]), name


def test_pixel_statistics_are_those_of_timms_data_config(tmp_path):
    opts = (*backbone(FASTER_RCNN), "MODEL.PIXEL_STD", [1.0, 1.0, 1.0])  # the default, which the config file changes
    cfg = setup(arguments(tmp_path, FASTER_RCNN, *opts))
    expected = engine_cfg(FASTER_RCNN, *opts)
    assert cfg.MODEL.PIXEL_STD == expected.MODEL.PIXEL_STD != [1.0, 1.0, 1.0]
    assert cfg.MODEL.PIXEL_MEAN == expected.MODEL.PIXEL_MEAN and cfg.INPUT.FORMAT == "RGB"
    mine = plugin_cfg(FASTER_RCNN, *opts)
    with pytest.raises(ValueError, match=r"timm's data config of test_convnext asks for .*DATA_CONFIG False"):
        build_detectron2_model(mine)
    derive_from_backbone(mine)
    build_detectron2_model(mine)
