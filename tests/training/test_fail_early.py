"""What cannot be used is refused before the first iteration, and before anything is written."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple

import pytest
import torch
from small_models import small_config, write_small_data_set
from training_toys import ToyModel, ToyStream, toy_config, toy_trainer

from bcnet.training import train
from bcnet.training.step import TrainingStep

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    return write_small_data_set(tmp_path_factory.mktemp("data") / "small", images=2)


@pytest.fixture
def no_step(monkeypatch):
    def forbidden(*_):
        raise AssertionError("an iteration has begun")

    monkeypatch.setattr(TrainingStep, "__call__", forbidden)


def snapshot(folder) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def changed_annotations(data_set, tmp_path, change) -> str:
    """The spec of the same data set with other annotations."""
    _, annotations, images = data_set.split(":")
    with open(annotations) as file:
        content = json.load(file)
    change(content)
    (tmp_path / "changed.json").write_text(json.dumps(content))
    return f"coco:{tmp_path / 'changed.json'}:{images}"


def broken_segmentation(content) -> None:
    content["annotations"][0]["segmentation"] = {"size": [48, 64], "counts": "not an RLE \x00"}


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"DATASETS__TRAIN": ("coco:absent.json:images",)}, FileNotFoundError, "absent.json"),
        ({"DATASETS__TEST": ("coco:absent.json:images",)}, FileNotFoundError, "absent.json"),
        ({"DATASETS__TEST": broken_segmentation}, ValueError, "changed.json"),
        ({"MODEL__WEIGHTS": "absent.pth"}, FileNotFoundError, "absent.pth"),
        ({"SOLVER__BASE_LR": 0.0}, ValueError, "SOLVER.BASE_LR is 0.0"),
        ({"OUTPUT_DIR": "a file"}, ValueError, "OUTPUT_DIR is .* is not a folder"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    tmp_path, data_set, no_step, overrides, error, message
):
    output = tmp_path / "output"
    if overrides.get("OUTPUT_DIR"):
        output.write_text("a file")
        overrides = {}
    if callable(change := overrides.get("DATASETS__TEST")):
        overrides = {"DATASETS__TEST": (changed_annotations(data_set, tmp_path, change),)}
    cfg = small_config(
        **{"OUTPUT_DIR": str(output), "DATASETS__TRAIN": (data_set,), "DATASETS__TEST": (data_set,), **overrides}
    )
    with pytest.raises(error, match=message):
        train(cfg)
    assert not output.is_dir()


def disk_with(monkeypatch, free: float) -> None:
    usage = namedtuple("usage", "total used free")(10**12, 0, int(free))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_a_full_disk_is_refused_with_the_numbers(tmp_path, data_set, no_step, monkeypatch):
    disk_with(monkeypatch, 3 * MEGABYTE)
    cfg = small_config(OUTPUT_DIR=str(tmp_path / "output"), DATASETS__TRAIN=(data_set,))
    with pytest.raises(OSError, match=r"has 3\.0 MB of free .* one checkpoint \(\d\d\.\d MB\) and model_final\.pth"):
        train(cfg)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("kept", "period", "count"), [(1, 1, 2), (3, 1, 4), (0, 1, 8), (0, 3, 3), (5, 7, 2), (5, 0, 1)]
)
def test_a_disk_that_will_be_full_is_a_warning(tmp_path, caplog, monkeypatch, kept, period, count):
    settings = {"SOLVER__MAX_ITER": 8, "SOLVER__CHECKPOINTS_KEPT": kept, "SOLVER__CHECKPOINT_PERIOD": period}
    trainer = toy_trainer(toy_config(tmp_path, **settings), ToyModel())
    state, checkpoints = trainer.state, trainer.checkpointer.checkpoints
    needed = count * state.checkpoint_bytes() + state.final_bytes()
    disk_with(monkeypatch, needed)
    checkpoints.check_folder(state, max_iter=8, period=period)
    assert "free disk space" not in caplog.text
    if count > 1:
        disk_with(monkeypatch, needed - 1)
        checkpoints.check_folder(state, max_iter=8, period=period)
        assert f"{count} checkpoints of" in caplog.text


def test_a_folder_without_permission(tmp_path, monkeypatch):
    trainer = toy_trainer(toy_config(tmp_path / "a" / "b"), ToyModel())
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(tmp_path))
    with pytest.raises(ValueError, match=r"OUTPUT_DIR is .*/a/b', and .* cannot be written to"):
        trainer.checkpointer.checkpoints.check_folder(trainer.state, max_iter=4, period=0)


@pytest.mark.parametrize("settings", [{}, {"SOLVER__OPTIMIZER": "AdamW", "SOLVER__EMA__ENABLED": True}])
def test_the_estimated_size_is_that_of_the_file(tmp_path, settings):
    class Large(ToyModel):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(500_000))

        def forward(self, images, targets):
            return {"loss_mask": super().forward(images, targets)["loss_mask"] + self.weight.sum()}

    trainer = toy_trainer(toy_config(tmp_path, SOLVER__MAX_ITER=1, **settings), Large())
    expected = {"model_0000000.pth": trainer.state.checkpoint_bytes(), "model_final.pth": trainer.state.final_bytes()}
    trainer.run()
    for name, size in expected.items():
        assert (tmp_path / name).stat().st_size == pytest.approx(size, rel=0.05), name


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"SOLVER__MAX_ITER": 1}, ValueError, r"SOLVER\.MAX_ITER is 1, .* has 2 iterations"),
        ({"MODEL__ROI_HEADS__NUM_CLASSES": 4}, ValueError, "is of another model"),
        ({"DATASETS__TEST": ("coco:absent.json:images",)}, FileNotFoundError, "absent.json"),
    ],
)
def test_a_refused_resume_changes_no_file(tmp_path, data_set, overrides, error, message):
    settings = {"OUTPUT_DIR": str(tmp_path), "DATASETS__TRAIN": (data_set,), "SOLVER__MAX_ITER": 2}
    train(small_config(**settings))
    before = snapshot(tmp_path)
    assert str(tmp_path / "last_checkpoint") in before
    with pytest.raises(error, match=message):
        train(small_config(**{**settings, **overrides}), resume=True)
    assert snapshot(tmp_path) == before


def test_max_iter_of_a_finished_run_is_its_end(tmp_path):
    toy_trainer(toy_config(tmp_path, SOLVER__MAX_ITER=3), ToyModel()).run()
    toy_trainer(toy_config(tmp_path, SOLVER__MAX_ITER=3), ToyModel(), resume=True).run()
    with pytest.raises(ValueError, match=r"SOLVER\.MAX_ITER is 2, .* has 3 iterations"):
        toy_trainer(toy_config(tmp_path, SOLVER__MAX_ITER=2), ToyModel(), resume=True)


def test_the_final_model_is_written_before_the_last_evaluation(tmp_path):
    def failing(model):
        raise RuntimeError("the evaluation has failed")

    with pytest.raises(RuntimeError, match="the evaluation has failed"):
        toy_trainer(toy_config(tmp_path), ToyModel(), ToyStream(), failing).run()
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert content["iteration"] == 3
