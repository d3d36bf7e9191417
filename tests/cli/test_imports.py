"""``--import MODULE``, and what `bcnet info` says of components of another package."""

from __future__ import annotations

import argparse
import sys

import pytest
from small_models import small_config
from torch import nn

import bcnet.cli.train_processes as command_line
from bcnet.cli.arguments import add_config_arguments
from bcnet.modeling import BACKBONE_REGISTRY
from bcnet.modeling.describe import describe_config


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the current folder that notes how often it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_heads.py").write_text("import sys\nsys.own_imports = getattr(sys, 'own_imports', 0) + 1\n")
    (tmp_path / "broken_heads.py").write_text("import no_such_package\n")
    yield "own_heads"
    sys.modules.pop("own_heads", None)
    if hasattr(sys, "own_imports"):
        del sys.own_imports


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(prog="bcnet")
    add_config_arguments(parser)
    return parser


def test_a_module_of_the_current_folder_is_imported_when_it_is_named(module, parser):
    assert parser.parse_args([]).imports == []
    args = parser.parse_args(["--import", module, "--import", "json", "SEED", "1"])
    assert (args.imports, args.opts, sys.own_imports) == ([module, "json"], ["SEED", "1"], 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent_heads", "No module named 'absent_heads'"), ("broken_heads", "No module named 'no_such_package'")],
)
def test_what_cannot_be_imported_is_an_error_of_the_command_line(module, parser, capsys, name, message):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--import", name])
    assert caught.value.code == 2 and f"argument --import: {name}: {message}" in capsys.readouterr().err


def test_every_process_of_a_training_imports(module, monkeypatch):
    trained = []
    monkeypatch.setattr(command_line, "train", lambda cfg, resume: trained.append(sys.own_imports))
    command_line.run("", ["MODEL.DEVICE", "cpu"], False, False, [module])
    assert trained == [1]


def test_a_backbone_of_another_package_is_described_by_its_name(monkeypatch):
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.strides = {f"p{level}": 2**level for level in range(2, 7)}
            self.out_channels, self.size_divisibility = 32, 64

        from_config = classmethod(lambda cls, cfg: cls())

    monkeypatch.setattr(BACKBONE_REGISTRY, "_obj_map", dict(BACKBONE_REGISTRY._obj_map))
    BACKBONE_REGISTRY.register(Mine)
    assert describe_config(small_config(MODEL__BACKBONE__NAME="Mine"))["backbone"] == "Mine"
    assert describe_config(small_config())["backbone"] == "ResNet-18-FPN"
