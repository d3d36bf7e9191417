from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from training_toys import toy_config

from bcnet.training.solver import LearningRate, build_optimizer, clip_gradients, parameter_groups


def schedule(tmp_path, **overrides):
    return LearningRate.from_config(toy_config(tmp_path, **overrides))


def test_multi_step_with_warm_up(tmp_path):
    rate = schedule(
        tmp_path,
        SOLVER__BASE_LR=0.02,
        SOLVER__MAX_ITER=100,
        SOLVER__STEPS=(60, 80),
        SOLVER__WARMUP_ITERS=10,
        SOLVER__WARMUP_FACTOR=0.001,
    )
    assert rate.at(0) == pytest.approx(0.02 * 0.001)
    assert rate.at(5) == pytest.approx(0.02 * (0.5 + 0.5 * 0.001))
    assert [rate.at(i) for i in (10, 59, 60, 79, 80, 99)] == pytest.approx([0.02, 0.02, 2e-3, 2e-3, 2e-4, 2e-4])


def test_cosine_is_not_shifted_by_the_warm_up(tmp_path):
    rate = schedule(
        tmp_path,
        SOLVER__LR_SCHEDULER_NAME="WarmupCosineLR",
        SOLVER__BASE_LR=1.0,
        SOLVER__BASE_LR_END=0.1,
        SOLVER__MAX_ITER=100,
        SOLVER__WARMUP_ITERS=20,
    )
    cosine = lambda where: 0.1 + 0.45 * (1 + math.cos(math.pi * where))  # noqa: E731
    assert rate.at(20) == pytest.approx(cosine(0.2))
    assert rate.at(10) == pytest.approx((0.001 + cosine(0.2)) / 2)
    assert rate.at(99) == pytest.approx(cosine(0.99))


@pytest.mark.parametrize("warm_up", [0, 4, 40])
def test_warm_up_of_any_length(tmp_path, warm_up):
    rate = schedule(tmp_path, SOLVER__MAX_ITER=4, SOLVER__WARMUP_ITERS=warm_up)
    assert all(0 < rate.at(i) <= 0.1 for i in range(4))


def test_a_warm_up_longer_than_the_run_is_a_warning(tmp_path, caplog):
    schedule(tmp_path, SOLVER__MAX_ITER=40, SOLVER__WARMUP_ITERS=40)
    assert "WARMUP_ITERS" not in caplog.text
    schedule(tmp_path, SOLVER__MAX_ITER=40, SOLVER__WARMUP_ITERS=41)
    assert "SOLVER.WARMUP_ITERS is 41, longer than the run (SOLVER.MAX_ITER 40)" in caplog.text


def test_steps_after_the_end_are_ignored_with_a_warning(tmp_path, caplog):
    rate = schedule(tmp_path, SOLVER__MAX_ITER=10, SOLVER__STEPS=(5, 10, 20))
    assert rate.at(9) == pytest.approx(0.01)
    assert "(5, 10, 20)" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"SOLVER__STEPS": (3, 2)}, r"SOLVER.STEPS is \(3, 2\)"),
        ({"SOLVER__STEPS": (0,)}, r"SOLVER.STEPS is \(0,\)"),
        ({"SOLVER__MAX_ITER": 0}, "SOLVER.MAX_ITER is 0"),
        ({"SOLVER__BASE_LR": 0.0}, "SOLVER.BASE_LR is 0.0"),
    ],
)
def test_schedules_that_make_no_sense(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        schedule(tmp_path, **overrides)


def test_norm_layers_have_a_weight_decay_of_their_own():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.Linear(8, 8))
    model[3].weight.requires_grad = False
    regular, norm = parameter_groups(model, weight_decay=0.1, weight_decay_norm=0.0)
    assert regular["weight_decay"] == 0.1
    assert regular["params"] == [model[0].weight, model[0].bias, model[3].bias]
    assert norm["weight_decay"] == 0.0
    assert norm["params"] == [*model[1].parameters(), *model[2].parameters()]


def test_shared_parameters_are_listed_once():
    layer = nn.Linear(2, 2)
    (group,) = parameter_groups(nn.ModuleList([layer, nn.Sequential(layer)]), weight_decay=0, weight_decay_norm=0)
    assert len(group["params"]) == 2


def test_optimizers(tmp_path):
    model = nn.Linear(2, 2)
    sgd = build_optimizer(toy_config(tmp_path, SOLVER__NESTEROV=True, SOLVER__MOMENTUM=0.8), model)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"], sgd.defaults["lr"]) == (0.8, True, 0.1)
    adamw = build_optimizer(toy_config(tmp_path, SOLVER__OPTIMIZER="AdamW", SOLVER__WEIGHT_DECAY=0.05), model)
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["weight_decay"] == 0.05


def test_nothing_to_train(tmp_path):
    with pytest.raises(ValueError, match="no trainable parameter"):
        build_optimizer(toy_config(tmp_path), nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize(
    ("clip_type", "expected"),
    [
        ("value", [[1.0, 1.0], [0.0, 0.5]]),
        ("norm", [[0.6, 0.8], [0.0, 0.5]]),
        ("full_model", [[3 / math.sqrt(25.25), 4 / math.sqrt(25.25)], [0.0, 0.5 / math.sqrt(25.25)]]),
    ],
)
def test_clipping(clip_type, expected):
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([3.0, 4.0])
    parameters[1].grad = torch.tensor([0.0, 0.5])
    clip_gradients(parameters, clip_type=clip_type, clip_value=1.0, norm_type=2.0)
    assert torch.stack([p.grad for p in parameters[:2]]).tolist() == [pytest.approx(row, abs=1e-5) for row in expected]
    assert parameters[2].grad is None


def test_unknown_clipping():
    with pytest.raises(ValueError, match="'max'"):
        clip_gradients([], clip_type="max", clip_value=1.0, norm_type=2.0)
