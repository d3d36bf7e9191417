"""Weights of components of another package: their names as they are, or by an adapter of their own."""

from __future__ import annotations

import pytest
import torch
from checkpoint_samples import small_config
from torch import nn

from bcnet.checkpoint import load_weights, to_detectron2, write_weights
from bcnet.modeling import BACKBONE_REGISTRY, build_model
from bcnet.modeling.checkpoint_adapter import CheckpointAdapter, adapter_of


class Backbone(nn.Module):
    """Five levels of the names that FCOS expects."""

    size_divisibility = 8

    def __init__(self, channels):
        super().__init__()
        self.strides = {f"p{level}": 2**level for level in range(3, 8)}
        self.out_channels = channels
        self.trunk = nn.Sequential(nn.Conv2d(3, channels, 8, stride=8), nn.BatchNorm2d(channels))

    @classmethod
    def from_config(cls, cfg):
        return cls(cfg.MODEL.FPN.OUT_CHANNELS)


class Adapter(CheckpointAdapter):
    """The trunk alone, as another code saves it."""

    dialects = ("trunks",)

    def rules(self, dialect, keys):
        return {"trunks": [("backbone.trunk.0.*", "conv1.*"), ("backbone.trunk.1.*", "layer1.0.conv1.*")]}.get(
            dialect, ()
        )

    def fault(self, report):
        return "the trunk is half there" if "backbone.trunk.1.bias" in report.missing else None

    def warnings(self, model, conversion, author):
        return [f"by {author}"] if author else []


class AdaptedBackbone(Backbone):
    checkpoint_adapter = Adapter()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(BACKBONE_REGISTRY, "_obj_map", dict(BACKBONE_REGISTRY._obj_map))
    BACKBONE_REGISTRY.register(Backbone)
    BACKBONE_REGISTRY.register(AdaptedBackbone)


def model(name, seed=0, **changes):
    torch.manual_seed(seed)
    return build_model(small_config(MODEL__BACKBONE__NAME=name, **changes))


def assert_equal(state, other):
    assert state.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in state.items())


@pytest.mark.parametrize("mask_on", [True, False])
@pytest.mark.parametrize("to", [dict, to_detectron2])
def test_without_an_adapter_the_names_stay_as_they_are(tmp_path, mask_on, to):
    source, target = (model("Backbone", seed, MODEL__MASK_ON=mask_on) for seed in (0, 1))
    theirs = to(source.state_dict())
    assert "backbone.trunk.0.weight" in theirs
    assert any(key.startswith("mask_head.occludee_layer.") for key in theirs) == (mask_on and to is to_detectron2)
    write_weights(theirs, str(tmp_path / "model.pth"))
    assert not load_weights(target, str(tmp_path / "model.pth")).differs
    assert_equal(target.state_dict(), source.state_dict())


def trunk_file(tmp_path, *left_out):
    trunk = Backbone(16).trunk
    state = {f"conv1.{key}": value for key, value in trunk[0].state_dict().items()}
    state |= {f"layer1.0.conv1.{key}": torch.rand_like(value.float()) for key, value in trunk[1].state_dict().items()}
    state = {key: value for key, value in state.items() if key not in left_out and "num_batches" not in key}
    path = str(tmp_path / "trunk.pth")
    write_weights(state, path, extra={"__author__": "somebody"})
    return state, path


def test_a_dialect_of_the_components_own(tmp_path):
    """Names that look like torchvision's ResNet, which the component's adapter knows better."""
    state, path = trunk_file(tmp_path)
    target = model("AdaptedBackbone")
    report = load_weights(target, path, strict=False)
    assert report.origin == "trunks" and report.skipped == [] and report.warnings == ["by somebody"]
    assert len(report.loaded) == len(state) == 6
    assert torch.equal(target.backbone.trunk[0].weight, state["conv1.weight"])
    assert torch.equal(target.backbone.trunk[1].running_var, state["layer1.0.conv1.running_var"])


def test_a_component_may_refuse_weights(tmp_path):
    _, path = trunk_file(tmp_path, "layer1.0.conv1.bias")
    target = model("AdaptedBackbone")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"(?s)the trunk is half there:\n.*missing +1  backbone\.trunk\.1\.bias"):
        load_weights(target, path, strict=False)
    assert_equal(target.state_dict(), before)


def test_the_base_says_nothing():
    adapter = adapter_of(object())
    assert type(adapter) is CheckpointAdapter
    assert (adapter.rules("detectron2", []), adapter.fault(None), adapter.warnings(None, None, "")) == ((), None, [])
