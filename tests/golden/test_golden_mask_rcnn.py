"""The stand-alone Mask R-CNN against detectron2's, on equal weights."""

from __future__ import annotations

import golden_values
import pytest
import torch

NAME = "mask_rcnn_R_50"


@pytest.fixture(scope="module")
def golden():
    return golden_values.load(NAME)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return golden_values.model(
        NAME, "baselines/mask_rcnn_R_50_FPN_3x.yaml", ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.02], folder
    )


@pytest.fixture(scope="module")
def features(model):
    with torch.no_grad():
        return model.features([golden_values.image()])


def test_features(golden, features):
    maps, image_sizes = features
    assert image_sizes == [(250, 310)]
    assert list(maps) == ["p2", "p3", "p4", "p5", "p6"]
    for name, feature in maps.items():
        golden_values.assert_samples(golden, f"feat_{name}", feature)


def test_anchors_and_rpn(golden, model, features):
    levels = list(features[0].values())
    anchors = model.rpn.anchor_generator(levels)
    with torch.no_grad():
        logits, deltas = model.rpn.head(levels)
    for level in range(5):
        golden_values.assert_samples(golden, f"anchors{level}", anchors[level])
        golden_values.assert_samples(golden, f"rpn_logits{level}", logits[level])
        golden_values.assert_samples(golden, f"rpn_deltas{level}", deltas[level])


def test_proposals(golden, model, features):
    with torch.no_grad():
        (boxes,), (logits,), losses = model.rpn(list(features[0].values()), features[1], None)
    assert losses == {}
    assert len(boxes) == golden["num_proposals"]
    golden_values.assert_close(logits[:200], golden["proposal_logits"], "proposal_logits")
    golden_values.assert_close(boxes[:200], golden["proposals"], "proposals")


def test_heads_on_fixed_boxes(golden, model, features):
    boxes = [torch.from_numpy(golden["fixed_boxes"])]
    levels = [features[0][name] for name in model.mask_features]
    with torch.no_grad():
        logits, deltas = model.box_branch.head(model.box_branch.pooler(levels, boxes))
        masks = model.mask_branch.head(model.mask_branch.pooler(levels, boxes))["occludee_mask"]
    golden_values.assert_close(logits, golden["fixed_class_logits"], "class_logits")
    golden_values.assert_close(deltas, golden["fixed_box_deltas"], "box_deltas")
    golden_values.assert_samples(golden, "fixed_mask_logits", masks)


def test_detections(golden, model):
    (detections,) = model.inference([golden_values.image()])
    assert len(detections) == 100
    assert len(golden_values.match_detections(golden, detections)) >= 98
