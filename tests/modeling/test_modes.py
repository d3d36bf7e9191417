"""Inference inside training leaves the mode of every submodule as it was."""

from __future__ import annotations

import pytest
import torch
from small_models import DETECTORS, small_config
from torch import nn

from bcnet.modeling import build_model
from bcnet.modeling.modes import evaluating
from bcnet.structures import Detections


@pytest.mark.parametrize("detector", DETECTORS)
def test_inference_keeps_submodules_in_eval_mode(detector):
    model = build_model(small_config(detector)).train()
    model.backbone.resnet.layer1.eval()
    model.mask_branch.head.occluder_layer.gcn.norm.eval()
    before = [module.training for module in model.modules()]
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    empty = Detections((64, 64), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    model.inference([image])
    model.inference_boxes([image])
    model.inference_masks([image], [empty])
    assert [module.training for module in model.modules()] == before
    assert True in before and False in before


def test_modes_return_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with pytest.raises(RuntimeError, match="within"), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError("within")
    assert [module.training for module in model.modules()] == [True, True, False]
