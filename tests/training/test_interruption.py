"""Graceful shutdown in training: signals, closed outputs, and workers that die."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest
import torch
from training_toys import ToyModel, ToyStream, read, same, toy_config, trained

from bcnet.training import TrainingInterrupted, build_trainer
from bcnet.training.step import TrainingStep


def signalling(iteration: int, number=signal.SIGINT):
    return ToyStream(on_iteration=lambda i: signal.raise_signal(number) if i == iteration else None)


def test_a_checkpoint_is_written_where_the_output_is_closed(tmp_path, monkeypatch):
    """Ctrl-C on ``bcnet train 2>&1 | tee log`` ends tee first: writing fails from then on."""

    def closed(_descriptor, _data):
        raise BrokenPipeError

    monkeypatch.setattr("bcnet.training.interruption.os.write", closed)
    with pytest.raises(TrainingInterrupted):
        trained(toy_config(tmp_path), signalling(1))
    assert read(tmp_path / "model_0000001.pth")["iteration"] == 1


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        trained(toy_config(tmp_path), signalling(0))
    assert signal.getsignal(signal.SIGINT) is before


def test_loader_ended_by_the_signal(tmp_path):
    """Workers of a loader die with a signal to the process group; what was trained so far is saved."""

    def die(iteration):
        if iteration == 2:
            signal.raise_signal(signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    with pytest.raises(TrainingInterrupted, match="after iteration 1"):
        trained(toy_config(tmp_path), ToyStream(on_iteration=die))
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    trained(toy_config(tmp_path), resume=True)
    (tmp_path / "whole").mkdir()
    trained(toy_config(tmp_path / "whole"))
    assert same(read(tmp_path / "model_final.pth")["model"], read(tmp_path / "whole" / "model_final.pth")["model"])


class EndlessSamples(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(ToyStream()(0))


@pytest.mark.parametrize("asked_to_stop", [True, False])
def test_a_killed_worker_does_not_break_an_iteration(tmp_path, monkeypatch, asked_to_stop):
    """torch raises the error of a killed worker at once, wherever the program is; here it waits for the next batch."""
    update, steps = TrainingStep._update, []

    def killing_update(self):
        if len(steps) == 1:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGTERM)
            worker.join()
            if asked_to_stop:
                signal.raise_signal(signal.SIGTERM)
        update(self)
        steps.append(1)

    monkeypatch.setattr(TrainingStep, "_update", killing_update)
    loader = torch.utils.data.DataLoader(EndlessSamples(), batch_size=None, num_workers=1)
    trainer = build_trainer(toy_config(tmp_path), ToyModel(), loader)
    with pytest.raises(TrainingInterrupted if asked_to_stop else RuntimeError, match=r"iteration 1|worker"):
        trainer.run()
    assert len(steps) == 2
    assert (tmp_path / "last_checkpoint").exists() == asked_to_stop


def test_a_loader_that_fails_by_itself_is_an_error(tmp_path):
    def fail(iteration):
        if iteration == 1:
            raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        trained(toy_config(tmp_path), ToyStream(on_iteration=fail))
