from __future__ import annotations

import logging
import math
import os
import random
import signal

import numpy as np
import pytest
import torch
from training_toys import ToyModel, ToyStream, metrics, read, same, toy_config, toy_trainer, trained

from bcnet.distributed import shared_seed
from bcnet.training import NonFiniteLossError, TrainingInterrupted
from bcnet.training.reproducibility import random_state, restore_random_state, seed_everything
from bcnet.training.step_values import StepValues

SETTINGS = {
    "sgd": {},
    "adamw, averaged, clipped": {
        "SOLVER__OPTIMIZER": "AdamW",
        "SOLVER__EMA__ENABLED": True,
        "SOLVER__EMA__DECAY": 0.5,
        "SOLVER__CLIP_GRADIENTS__ENABLED": True,
    },
    "bf16, accumulated": {"SOLVER__AMP__ENABLED": True, "SOLVER__ACCUMULATE_STEPS": 2},
    "fp16": {"SOLVER__AMP__ENABLED": True, "SOLVER__AMP__DTYPE": "fp16"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, name):
    solver = {"SOLVER__MAX_ITER": 6, "SOLVER__WARMUP_ITERS": 3, **SETTINGS[name]}
    accumulate = solver.get("SOLVER__ACCUMULATE_STEPS", 1)
    trained(toy_config(tmp_path / "whole", **solver))
    cfg = toy_config(tmp_path / "parts", **solver)

    def interrupt(iteration):
        if iteration == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match=r"interrupted after iteration 2; .*--resume") as caught:
        trained(cfg, ToyStream(accumulate=accumulate, on_iteration=interrupt))
    assert caught.value.signal_number == signal.SIGTERM
    assert read(tmp_path / "parts" / "model_0000002.pth")["iteration"] == 2
    trained(cfg, resume=True)

    whole, parts = (read(tmp_path / folder / "model_0000005.pth") for folder in ("whole", "parts"))
    for content in (whole, parts):
        del content["config"]  # it has the folder's name
    assert same(whole, parts)
    assert same(*({**read(tmp_path / folder / "model_final.pth"), "config": None} for folder in ("whole", "parts")))
    losses = [
        {record["iteration"]: record["total_loss"] for record in metrics(tmp_path / f)} for f in ("whole", "parts")
    ]
    assert losses[1][5] == losses[0][5]


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()


def test_periodic_checkpoints_are_rotated_and_plain(tmp_path):
    (tmp_path / "model_0000000.pth").write_bytes(b"of an earlier run")
    trained(toy_config(tmp_path, SOLVER__MAX_ITER=9, SOLVER__CHECKPOINT_PERIOD=2, SOLVER__CHECKPOINTS_KEPT=2))
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names == ["model_0000000.pth", "model_0000007.pth", "model_0000008.pth", "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000008.pth"
    content = read(tmp_path / "model_0000008.pth")
    weights = {"model", "iteration", "config", "seed", "class_names", "bcnet_version"}
    assert set(content) == weights | {"optimizer", "scaler", "ema", "random_states"}
    assert set(read(tmp_path / "model_final.pth")) == weights
    assert (content["iteration"], content["seed"], len(content["random_states"])) == (8, 3, 1)
    assert set(content["random_states"][0]) >= {"torch", "numpy", "python"}
    assert "MAX_ITER: 9" in content["config"]
    assert not list(tmp_path.glob("*.tmp"))


def test_resume_goes_on_rotating(tmp_path):
    options = {"SOLVER__CHECKPOINT_PERIOD": 1, "SOLVER__CHECKPOINTS_KEPT": 2}
    trained(toy_config(tmp_path, SOLVER__MAX_ITER=2, **options))
    trained(toy_config(tmp_path, SOLVER__MAX_ITER=4, **options), resume=True)
    assert sorted(path.name for path in tmp_path.glob("model_0*.pth")) == ["model_0000002.pth", "model_0000003.pth"]


def test_accumulation_equals_the_whole_batch(tmp_path):
    """For a model whose loss is a mean over images and that draws nothing."""

    class Mean(ToyModel):
        def forward(self, images, targets):
            values = self.layers[0](torch.stack(images).float() / 255)
            return {"loss_mask": values.square().mean()}

    weights = []
    for steps in (1, 2):
        cfg = toy_config(tmp_path, SOLVER__ACCUMULATE_STEPS=steps)
        trainer = toy_trainer(cfg, Mean())
        trainer.run()
        weights.append(trainer.state.model.layers[0].weight.detach())
    assert torch.allclose(*weights, atol=1e-6)
    first, second = metrics(tmp_path)[:2], metrics(tmp_path)[2:]
    assert [r["total_loss"] for r in first] == pytest.approx([r["total_loss"] for r in second], rel=1e-5)
    assert first[0]["instances"] == second[0]["instances"] == 4


def test_averaged_weights_are_evaluated_and_shipped(tmp_path):
    seen = []

    def evaluate(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"toy/AP": 1.0}

    cfg = toy_config(tmp_path, SOLVER__EMA__ENABLED=True, SOLVER__EMA__DECAY=0.5)
    trainer = trained(cfg, evaluate=evaluate)
    content = read(tmp_path / "model_0000003.pth")
    assert same(seen[-1], content["model"])
    assert same(read(tmp_path / "model_final.pth")["model"], content["model"])
    assert same(content["ema"]["live_model"], dict(trainer.state.model.state_dict()))
    assert content["ema"]["n_averaged"] == 4
    assert not torch.equal(content["model"]["layers.0.weight"], content["ema"]["live_model"]["layers.0.weight"])


def test_evaluation_happens_when_due_and_leaves_no_trace(tmp_path):
    calls = []

    def evaluate(model):
        calls.append(model.training)
        random.random(), np.random.rand(), torch.rand(3)
        model.eval()
        return {"toy/segm/AP": 12.5, "toy/segm/APs": math.nan}

    trainer = trained(toy_config(tmp_path, SOLVER__MAX_ITER=5, TEST__EVAL_PERIOD=2), evaluate=evaluate)
    assert len(calls) == 3  # after iterations 1, 3 and the last one
    records = [record for record in metrics(tmp_path) if "toy/segm/AP" in record]
    assert [record["iteration"] for record in records] == [1, 3, 4]
    assert records[0]["toy/segm/APs"] is None
    assert trainer.state.model.training
    trained(toy_config(tmp_path / "whole", SOLVER__MAX_ITER=5))
    assert same(read(tmp_path / "model_final.pth")["model"], read(tmp_path / "whole" / "model_final.pth")["model"])


def test_training_keeps_submodules_in_eval_mode(tmp_path):
    seen = []
    model = ToyModel()
    model.layers[1].eval()
    cfg = toy_config(tmp_path, TEST__EVAL_PERIOD=1)
    trainer = toy_trainer(cfg, model, evaluate=lambda m: seen.append(m.training) or (m.eval() and {}))
    trainer.run()
    assert len(seen) == 4 and all(seen)
    assert model.layers[0].training and not model.layers[1].training
    assert model.layers[1].num_batches_tracked == 0


def test_a_finished_run_resumes_into_its_evaluation(tmp_path):
    cfg = toy_config(tmp_path)
    trained(cfg)
    calls = []
    trained(cfg, resume=True, evaluate=lambda model: calls.append(1) or {})
    assert calls == [1]


def test_metrics_have_every_loss_and_the_averages_of_the_period(tmp_path, monkeypatch):
    seen = []
    send = StepValues.send.__func__
    monkeypatch.setattr(
        StepValues, "send", classmethod(lambda cls, values, **k: seen.append(dict(values)) or send(cls, values, **k))
    )
    trained(toy_config(tmp_path, SOLVER__MAX_ITER=5))
    records = metrics(tmp_path)
    assert [record["iteration"] for record in records] == [1, 3, 4]
    for record in records:
        assert record["total_loss"] == pytest.approx(record["loss_mask"] + record["loss_occluder_mask"])
        assert {"lr", "time", "data_time", "images_per_second", "eta_seconds", "instances"} <= set(record)
        assert not any("stop" in name for name in record)
    assert records[0]["loss_mask"] == pytest.approx(float(sum(v["loss_mask"] for v in seen[:2]) / 2))
    assert records[-1]["eta_seconds"] == 0
    assert any(name.startswith("events.out.tfevents") for name in os.listdir(tmp_path))


class Breaking(ToyModel):
    """A toy model whose loss, or gradient, is not finite for the image of one id."""

    def __init__(self, image: int, what: str) -> None:
        super().__init__()
        self.broken = ToyStream()(0)
        self.pixels = next(ToyStream(images=1)(image))[0]["image"]
        self.what = what

    def forward(self, images, targets):
        losses = super().forward(images, targets)
        if any(torch.equal(image, self.pixels) for image in images):
            if self.what == "loss":
                losses["loss_mask"] = losses["loss_mask"] * math.nan
            else:
                losses["loss_mask"] = losses["loss_mask"] + (losses["loss_mask"].detach() - losses["loss_mask"]).sqrt()
        return losses


@pytest.mark.parametrize("period", [1, 2, 100])
def test_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path, period):
    cfg = toy_config(tmp_path, SOLVER__MAX_ITER=20, SOLVER__CHECKPOINT_PERIOD=period)
    trainer = toy_trainer(cfg, Breaking(9, "loss"))
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.run()
    message = str(caught.value)
    assert "iteration 2" in message and "loss_mask = nan" in message and "loss_occluder_mask" not in message
    assert "image_9.jpg (id 9)" in message and "image_8.jpg" in message and "image_7.jpg" not in message
    written = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert written == {1: ["model_0000000.pth", "model_0000001.pth"], 2: ["model_0000001.pth"], 100: []}[period]
    for name in written:
        assert all(value.isfinite().all() for value in read(tmp_path / name)["model"].values())


def test_the_check_lags_one_iteration(tmp_path):
    fetched = []
    cfg = toy_config(tmp_path, SOLVER__MAX_ITER=20)
    trainer = toy_trainer(cfg, Breaking(9, "loss"), ToyStream(on_iteration=fetched.append))
    with pytest.raises(NonFiniteLossError):
        trainer.run()
    assert fetched == [0, 1, 2, 3]


def test_non_finite_gradients_do_not_get_into_a_checkpoint(tmp_path):
    cfg = toy_config(tmp_path, SOLVER__CHECKPOINT_PERIOD=1)
    with pytest.raises(NonFiniteLossError, match=r"iteration 2 .*layers\.0\.weight.*image_9\.jpg.*model_0000001\.pth"):
        toy_trainer(cfg, Breaking(9, "gradient")).run()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


@pytest.mark.parametrize(("with_occluder", "lines"), [(False, 1), (True, 0)])
def test_zero_occluder_losses_are_explained_once(tmp_path, caplog, with_occluder, lines):
    with caplog.at_level(logging.WARNING, logger="bcnet.training"):
        trained(toy_config(tmp_path, SOLVER__MAX_ITER=12), ToyStream(with_occluder=with_occluder))
    said = [record.getMessage() for record in caplog.records if "occluder" in record.getMessage()]
    assert len(said) == lines
    if lines:
        assert "of the 24 instances" in said[0] and "0 had an occluder" in said[0]


def test_a_short_run_without_occluders_is_explained_too(tmp_path, caplog):
    trained(toy_config(tmp_path, SOLVER__MAX_ITER=1), ToyStream(with_occluder=False))
    assert "of the 4 instances" in caplog.text


def test_config_decides_over_the_saved_optimizer(tmp_path):
    trained(toy_config(tmp_path, SOLVER__MAX_ITER=2))
    cfg = toy_config(tmp_path, SOLVER__MAX_ITER=2, SOLVER__MOMENTUM=0.5, SOLVER__WEIGHT_DECAY=0.25)
    trainer = trained(cfg, resume=True)
    assert [group["momentum"] for group in trainer.state.optimizer.param_groups] == [0.5, 0.5]
    assert trainer.state.optimizer.param_groups[0]["weight_decay"] == 0.25


def test_resume_with_averaging_switched_on_or_off(tmp_path, caplog):
    trained(toy_config(tmp_path, SOLVER__MAX_ITER=2))
    trained(toy_config(tmp_path, SOLVER__MAX_ITER=3, SOLVER__EMA__ENABLED=True), resume=True)
    assert "has no averaged weights" in caplog.text
    live = read(tmp_path / "model_0000002.pth")["ema"]["live_model"]
    trainer = toy_trainer(toy_config(tmp_path), ToyModel(1), resume=True)
    assert same(dict(trainer.state.model.state_dict()), live)


def test_a_checkpoint_of_another_model(tmp_path):
    trained(toy_config(tmp_path))
    with pytest.raises(ValueError, match="is of another model"):
        toy_trainer(toy_config(tmp_path), torch.nn.Linear(2, 2), resume=True)


def test_a_weights_file_is_not_a_training_checkpoint(tmp_path):
    trainer = trained(toy_config(tmp_path))
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(ValueError, match=r"model_final\.pth' is not a training checkpoint: it lacks optimizer"):
        trainer.checkpointer.checkpoints.read_last()


def test_batch_that_cannot_be_split(tmp_path):
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH \(4\) .*ACCUMULATE_STEPS \(3\)"):
        toy_trainer(toy_config(tmp_path, SOLVER__ACCUMULATE_STEPS=3), ToyModel())


def test_progress_bar_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BCNET_PROGRESS", "1")
    trained(toy_config(tmp_path))
    assert "4/4" in capsys.readouterr().err


def test_random_states_return(tmp_path):
    seed_everything(5)
    path = tmp_path / "state.pth"
    torch.save(random_state(), path)
    drawn = (random.random(), np.random.randn(), float(torch.rand(())))
    restore_random_state(read(path))
    assert (random.random(), np.random.randn(), float(torch.rand(()))) == drawn


def test_seeds():
    assert shared_seed(7) == 7
    assert shared_seed(0) == 0
    assert shared_seed(-1) != shared_seed(-1)
    assert shared_seed(-1) >= 0
