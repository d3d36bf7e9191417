"""No key of bcnet is ignored silently where detectron2 builds or trains the model."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.solver import build
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from plugin_samples import FASTER_RCNN, FCOS, inputs, plugin_cfg

from bcnet.detectron2 import BCNetTrainer, BilayerMaskHead, freeze_detector
from bcnet.detectron2.scripts import follow_keys_in_optimizers


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.OPTIMIZER", "adamw", r"SOLVER.OPTIMIZER is 'adamw'; it must be one of 'SGD', 'AdamW'"),
        ("SOLVER.ACCUMULATE_STEPS", 4, r"SOLVER.ACCUMULATE_STEPS is 4, which detectron2's trainer does not support"),
        ("SOLVER.EMA.ENABLED", True, r"SOLVER.EMA.ENABLED is True"),
        ("INPUT.BAD_IMAGE", "skip", r"INPUT.BAD_IMAGE is 'skip'.* or set it to 'raise'"),
        ("MODEL.ROI_MASK_HEAD.BOX_JITTER", 0.1, r"BOX_JITTER is 0.1, which detectron2's trainer does not support"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "all", r"CLIP_TYPE is 'all'; it must be one of .*'full_model'"),
    ],
)
def test_the_trainer_refuses_what_it_cannot_do(key, value, message):
    cfg = plugin_cfg(FASTER_RCNN, key, value)
    with pytest.raises(ValueError, match=message):
        BCNetTrainer(cfg)
    with pytest.raises(ValueError, match=message):
        BCNetTrainer.build_optimizer(cfg, torch.nn.Linear(1, 1))


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("OCCLUDER_TARGET", "fornt", r"MODEL.BILAYER.OCCLUDER_TARGET is 'fornt'; it must be one of 'neighbours', 'fr"),
        ("GCN_NORM", "GN", r"MODEL.BILAYER.GCN_NORM is 'GN'"),
        ("LOSS_WEIGHT.OCCLUDER_MASK", -1.0, r"LOSS_WEIGHT.OCCLUDER_MASK is -1.0; it must not be negative"),
    ],
)
def test_a_model_with_a_wrong_value_is_not_built(config_file, key, value, message):
    with pytest.raises(ValueError, match=message):
        build_model(plugin_cfg(config_file, f"MODEL.BILAYER.{key}", value))


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_a_detector_that_the_config_freezes_is_trained_frozen_or_not_at_all(config_file):
    model = build_model(plugin_cfg(config_file, "MODEL.FREEZE_DETECTOR", True)).train()
    with (
        pytest.raises(ValueError, match=r"MODEL.FREEZE_DETECTOR is True and the detector is not frozen"),
        EventStorage(),
    ):
        model(inputs(3))
    with torch.no_grad(), EventStorage():  # a validation loss
        assert "loss_mask" in model(inputs(3))
    with EventStorage():
        assert "loss_mask" in freeze_detector(model)(inputs(3))


def test_the_optimizer_of_a_script_follows_the_keys(monkeypatch):
    monkeypatch.setattr(build, "maybe_add_gradient_clipping", build.maybe_add_gradient_clipping)
    follow_keys_in_optimizers()
    clipping = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")
    cfg = plugin_cfg(FASTER_RCNN, *clipping, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1.0, "SOLVER.BASE_LR", 1.0)
    cfg.merge_from_list(["SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MOMENTUM", 0.0, "SOLVER.OPTIMIZER", "SGD"])
    model = torch.nn.Linear(2, 1)
    before = [p.clone() for p in model.parameters()]
    optimizer = build.build_optimizer(cfg, model)
    model(torch.tensor([[300.0, 400.0]])).sum().backward()
    optimizer.step()
    moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
    torch.testing.assert_close(moved.norm(), torch.tensor(1.0))
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.WEIGHT_DECAY = "AdamW", 0.05
    optimizer = build.build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.AdamW
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(1.0, 0.05)}
    cfg.SOLVER.EMA.ENABLED = True
    with pytest.raises(ValueError, match=r"SOLVER.EMA.ENABLED is True"):
        build.build_optimizer(cfg, model)


# -- Keywords of a lazy config ---------------------------------------------------------------------------------------


def detections(*classes):
    found = Instances((20, 20), pred_boxes=Boxes(torch.tensor([[1.0, 1, 9, 9]]).repeat(len(classes), 1)))
    found.pred_classes = torch.tensor(classes)
    return found


def test_keywords_that_do_not_fit_the_model_are_named():
    shape = ShapeSpec(channels=8, height=14, width=14)
    with pytest.raises(ValueError, match=r"occluder_target must be one of neighbours, front, got 'fornt'"):
        BilayerMaskHead(shape, occluder_target="fornt")
    with pytest.raises(ValueError, match=r"weight of map 'occluder_mask' is -1; it must be a number of at least 0"):
        BilayerMaskHead(shape, loss_weights={"occluder_mask": -1})
    with pytest.raises(ValueError, match=r"loss_weights names the map 'ocluder_mask'; there are occludee_mask, "):
        BilayerMaskHead(shape, loss_weights={"ocluder_mask": 1.0})
    with pytest.raises(ValueError, match=r"norm of the graph convolution must be one of BN, SyncBN, got 'GN'"):
        BilayerMaskHead(shape, gcn_norm="GN")
    with pytest.raises(ValueError, match=r"masks of at least 1 class \(num_mask_classes\), got 0"):
        BilayerMaskHead(shape, num_mask_classes=0)
    head = BilayerMaskHead(shape, num_mask_classes=2).eval()
    with pytest.raises(ValueError, match=r"built for 8 channels \(input_shape\) and gets features of 16: give Shape"):
        head(torch.zeros(1, 16, 14, 14), [detections(0)])
    with pytest.raises(ValueError, match=r"masks of 2 classes \(num_mask_classes\) and gets an object of class 2"):
        head(torch.zeros(2, 8, 14, 14), [detections(0, 2)])
    assert len(head(torch.zeros(2, 8, 14, 14), [detections(0, 1)])[0].pred_masks) == 2
