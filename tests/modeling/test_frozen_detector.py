"""MODEL.FREEZE_DETECTOR: the mask branch alone is trained."""

import pytest
import torch
from mask_layers import two_layers
from small_models import DETECTORS, small_config

from bcnet.modeling import build_model
from bcnet.structures import Targets
from bcnet.training import train
from bcnet.training.solver import build_optimizer


def batch():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 8:40] = masks[1, 20:56, 24:60] = True
    boxes = torch.tensor([[8.0, 8, 40, 40], [24, 20, 60, 56]])
    return [image], [Targets(boxes, torch.tensor([0, 1]), two_layers(masks, masks.flip(0)))]


@pytest.mark.parametrize("detector", DETECTORS)
def test_only_the_mask_branch_learns(detector):
    cfg = small_config(detector, MODEL__FREEZE_DETECTOR=True, MODEL__RESNETS__NORM="BN", SOLVER__BASE_LR=0.1)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = model(*batch())
    assert set(losses) == {"loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"}
    sum(losses.values()).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("mask_branch.") for name in changed)
    assert {name for name, _ in model.mask_branch.head.named_parameters(prefix="mask_branch.head")} <= changed
    assert not model.eval().mask_branch.training and not model.train().backbone.training


@pytest.mark.parametrize("detector", DETECTORS)
def test_detections_stay_those_of_the_detector(detector):
    cfg = small_config(detector, MODEL__FREEZE_DETECTOR=True, MODEL__RESNETS__NORM="BN", SOLVER__BASE_LR=0.1)
    torch.manual_seed(0)
    model = build_model(cfg)
    images, targets = batch()
    before = model.eval()(images)[0]
    optimizer = build_optimizer(cfg, model.train())
    sum(model(images, targets).values()).backward()
    optimizer.step()
    after = model.eval()(images)[0]
    assert torch.equal(before.boxes, after.boxes) and torch.equal(before.scores, after.scores)


def test_a_random_detector_is_not_frozen(tmp_path):
    cfg = small_config(MODEL__FREEZE_DETECTOR=True, OUTPUT_DIR=str(tmp_path))
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty: the detector would keep random weights"):
        train(cfg)


def test_nothing_is_left_to_train_without_masks():
    cfg = small_config(MODEL__FREEZE_DETECTOR=True, MODEL__MASK_ON=False)
    with pytest.raises(ValueError, match=r"MODEL\.FREEZE_DETECTOR is True and MODEL\.MASK_ON False"):
        build_model(cfg)
