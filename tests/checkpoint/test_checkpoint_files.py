from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from bcnet.checkpoint import load_weights, read_checkpoint, write_checkpoint


def test_round_trip(tmp_path):
    path = str(tmp_path / "model.pth")
    write_checkpoint({"model": {"weight": torch.arange(3)}, "iteration": 4, "rest": (1, 2.5, None, "text")}, path)
    content = read_checkpoint(path)
    assert content["rest"] == (1, 2.5, None, "text")
    assert torch.equal(content["model"]["weight"], torch.arange(3))
    assert os.listdir(tmp_path) == ["model.pth"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = str(tmp_path / "model.pth")
    write_checkpoint({"iteration": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint({"iteration": 2, "code": lambda: None}, path)
    assert read_checkpoint(path) == {"iteration": 1}
    assert os.listdir(tmp_path) == ["model.pth"]


class Evil:
    def __reduce__(self):
        return os.system, ("echo executed > /dev/null",)


def test_reading_never_executes_code(tmp_path):
    path = str(tmp_path / "evil.pth")
    torch.save({"model": Evil()}, path)
    with pytest.raises(ValueError, match=r"evil\.pth.*holds more than"):
        read_checkpoint(path)


def test_damaged_files(tmp_path):
    path = tmp_path / "model.pth"
    write_checkpoint({"model": {"weight": torch.zeros(1000)}}, str(path))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"model\.pth' \(700 bytes\) cannot be read"):
        read_checkpoint(str(path))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"\(0 bytes\)"):
        read_checkpoint(str(path))
    torch.save([1], path)
    with pytest.raises(ValueError, match="holds a list"):
        read_checkpoint(str(path))
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        read_checkpoint(str(tmp_path / "none.pth"))


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


@pytest.mark.parametrize("wrapped", [True, False])
def test_weights_alone_or_under_model(tmp_path, model, wrapped):
    state = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    path = str(tmp_path / "model.pth")
    torch.save({"model": state, "iteration": 3} if wrapped else state, path)
    assert not load_weights(model, path)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_all_differences_in_one_table(tmp_path, model):
    path = str(tmp_path / "model.pth")
    state = {
        "0.weight": torch.ones(3, 2),
        "0.bias": torch.ones(4),
        "1.weight": torch.ones(1, 3),
        "2.bias": torch.ones(1),
    }
    torch.save(state, path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="do not fit the model") as caught:
        load_weights(model, path)
    lines = [line.split() for line in str(caught.value).splitlines()[2:]]
    assert lines == [["0.bias", "(4,)", "(3,)"], ["1.bias", "-", "present"], ["2.bias", "present", "-"]]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_not_strict_loads_what_fits_and_says_the_rest(tmp_path, model, caplog):
    path = str(tmp_path / "model.pth")
    torch.save({"0.weight": torch.ones(3, 2), "0.bias": torch.ones(4)}, path)
    bias = model[0].bias.clone()
    differences = load_weights(model, path, strict=False)
    assert differences.missing == ("1.weight", "1.bias")
    assert differences.reshaped == (("0.bias", (4,), (3,)),)
    assert torch.equal(model[0].weight, torch.ones(3, 2))
    assert torch.equal(model[0].bias, bias)
    assert "1 of the model's 4 tensors" in caplog.text and "1.weight" in caplog.text


def test_nothing_fits(tmp_path, model):
    path = str(tmp_path / "model.pth")
    torch.save({"other": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"no tensor of .*model\.pth' \(1 tensors\) fits"):
        load_weights(model, path, strict=False)
