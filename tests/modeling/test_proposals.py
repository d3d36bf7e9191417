"""The RPN's losses and limits, and images for which it proposes nothing."""

from __future__ import annotations

import pytest
import torch
from small_models import DETECTORS, finding_detector, small_config

from bcnet.modeling import build_model
from bcnet.structures import InstanceMasks, Targets

IMAGES = [torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(3, 48, 64, dtype=torch.uint8)]


def targets(objects):
    boxes = torch.tensor([[4.0, 4, 36, 36], [20, 10, 60, 44]])[:objects]
    masks = torch.zeros(objects, 48, 64, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    return Targets(
        boxes, torch.zeros(objects, dtype=torch.int64), InstanceMasks.from_full({"occludee": masks, "occluder": masks})
    )


def without_proposals(how, **overrides):
    """A detector whose RPN proposes nothing: all proposals are too small, or its weights are no numbers."""
    min_size = 1000 if how == "min_size" else 0
    model = build_model(small_config(MODEL__PROPOSAL_GENERATOR__MIN_SIZE=min_size, **overrides))
    if how == "diverged":
        model.rpn.head.bbox_pred.bias.data.fill_(float("nan"))
    return model


@pytest.mark.parametrize("how", ["min_size", "diverged"])
@pytest.mark.parametrize("agnostic", [True, False])
def test_no_proposals_are_no_detections(how, agnostic):
    model = without_proposals(how, MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG=agnostic)
    features, sizes = model.features(IMAGES)
    proposals, _, _ = model.rpn([features[name] for name in model.rpn_features], sizes, None)
    assert [len(boxes) for boxes in proposals] == [0, 0]
    for detections in model.inference(IMAGES, with_occluder=True):
        assert len(detections) == 0 and detections.boxes.shape == (0, 4) and detections.occludee_mask.shape[0] == 0


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize("objects", [0, 2])
@pytest.mark.parametrize("append_gt", [True, False])
def test_no_proposals_train(objects, append_gt, agnostic):
    model = without_proposals(
        "min_size",
        MODEL__ROI_HEADS__PROPOSAL_APPEND_GT=append_gt,
        MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG=agnostic,
    ).train()
    losses = model(IMAGES, [targets(objects), targets(0)])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.box_branch.parameters())
    if not (objects and append_gt):
        assert losses["loss_cls"] == 0 and losses["loss_box_reg"] == 0


@pytest.mark.parametrize(("weight", "box_weight"), [(1.0, 1.0), (0.5, 1.0), (1.0, 3.0), (0.25, 2.0)])
def test_the_rpns_loss_weight_is_of_both_losses_and_the_box_weight_of_one(weight, box_weight):
    """detectron2: LOSS_WEIGHT multiplies objectness and box loss, BBOX_REG_LOSS_WEIGHT the box loss alone, further."""

    def losses(**overrides):
        torch.manual_seed(0)
        model = build_model(small_config(**overrides)).train()
        features, sizes = model.features(IMAGES)
        torch.manual_seed(1)
        levels = [features[name] for name in model.rpn_features]
        return model.rpn(levels, sizes, [targets(2).boxes, targets(1).boxes])[2]

    plain = losses()
    weighted = losses(MODEL__RPN__LOSS_WEIGHT=weight, MODEL__RPN__BBOX_REG_LOSS_WEIGHT=box_weight)
    assert plain["loss_rpn_cls"] > 0 and plain["loss_rpn_loc"] > 0
    torch.testing.assert_close(weighted["loss_rpn_cls"], weight * plain["loss_rpn_cls"])
    torch.testing.assert_close(weighted["loss_rpn_loc"], weight * box_weight * plain["loss_rpn_loc"])


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_negative_number_of_detections_is_no_limit(detector):
    """detectron2: ``TEST.DETECTIONS_PER_IMAGE`` below 0 keeps all that NMS leaves."""
    image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    (limited,) = finding_detector(detector, TEST__DETECTIONS_PER_IMAGE=3)[1].inference([image])
    model = finding_detector(detector, TEST__DETECTIONS_PER_IMAGE=-1)[1]
    (unlimited,) = model.inference([image])
    (many,) = finding_detector(detector, TEST__DETECTIONS_PER_IMAGE=100_000)[1].inference([image])
    assert model.max_detections is None
    assert len(limited) == 3 < len(unlimited) == len(many)
    assert torch.equal(unlimited.boxes, many.boxes) and torch.equal(unlimited.boxes[:3], limited.boxes)
