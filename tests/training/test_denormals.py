"""Denormal numbers are zeros in a training on the CPU, and nowhere else."""

from __future__ import annotations

import importlib

import pytest
import torch
from training_toys import toy_config

from bcnet.training.denormals import are_flushed, denormals_flushed

training_module = importlib.import_module("bcnet.training.train")  # its name is also a function's


@pytest.fixture(autouse=True)
def supported():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)


def test_they_are_flushed_within_the_context():
    assert not are_flushed()
    with pytest.raises(KeyError), denormals_flushed():
        assert are_flushed()
        with denormals_flushed():
            pass
        assert are_flushed()  # the outer context ends it
        raise KeyError
    assert not are_flushed()


def test_training_flushes_them_and_leaves_them_as_they_were(tmp_path, monkeypatch):
    """From the model's construction on: the threads that torch starts there inherit it."""

    class Watching:
        def run(self):
            return {"in the run": are_flushed(), "before it": prepared}

    def prepare(cfg, resume):
        nonlocal prepared
        prepared = are_flushed()
        return cfg, Watching()

    prepared = None
    monkeypatch.setattr(training_module, "prepare_training", prepare)
    assert training_module.train(toy_config(tmp_path)) == {"in the run": True, "before it": True}
    assert not are_flushed()
