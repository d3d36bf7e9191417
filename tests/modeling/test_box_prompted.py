"""The model without a detector: training on ground-truth boxes, jitter, evaluation in boxes, refusal to detect."""

from __future__ import annotations

import json

import pytest
import torch
from mask_layers import two_layers
from small_models import DETECTORS, small_config, write_small_data_set

import bcnet
from bcnet.modeling import BoxPrompted, build_model
from bcnet.ops.boxes import jittered_boxes, resized_boxes
from bcnet.structures import Targets
from bcnet.training import train
from bcnet.visualization.training_batches import draw_training_pictures

MASK_LOSSES = {"loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"}


def box_prompted(**overrides):
    return small_config("BoxPrompted", **overrides)


def batch(objects=2):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(objects, 64, 64, dtype=torch.bool)
    boxes = torch.zeros(objects, 4)
    for index in range(objects):
        x = 4 + 3 * index
        masks[index, 8:40, x : x + 24] = True
        boxes[index] = torch.tensor([x, 8, x + 24, 40])
    return [image], [Targets(boxes, torch.zeros(objects, dtype=torch.int64), two_layers(masks, masks.flip(0)))]


def test_only_masks_are_learned():
    model = build_model(box_prompted()).train()
    assert isinstance(model, BoxPrompted) and not model.detects
    losses = model(*batch())
    assert set(losses) == MASK_LOSSES
    sum(losses.values()).backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if p.requires_grad and "extra" not in n)
    (image,), (targets,) = batch()
    empty = [targets[torch.zeros(0, dtype=torch.int64)]]
    assert all(loss.item() == 0 and loss.requires_grad for loss in model([image], empty).values())


def test_of_a_crowded_image_some_objects_are_drawn():
    model = build_model(box_prompted(MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE=3)).train()
    _, targets = batch(objects=8)
    _, (rois,) = model.detection_losses({}, [(64, 64)], targets)
    assert len(rois.instances.unique()) == 3 and torch.equal(rois.boxes, targets[0].boxes[rois.instances])


def test_it_detects_nothing():
    model = build_model(box_prompted())
    with pytest.raises(ValueError, match=r"has no detector .* model\.segment\(image, boxes\)"):
        model.inference(batch()[0])


def test_without_masks_nothing_is_left():
    with pytest.raises(ValueError, match=r"MODEL\.MASK_ON False: nothing is left"):
        build_model(box_prompted(MODEL__MASK_ON=False))


@pytest.mark.parametrize("detector", [*DETECTORS, "BoxPrompted"])
def test_jitter_moves_the_training_rois_alone(detector, monkeypatch):
    cfg = small_config(detector, MODEL__ROI_MASK_HEAD__BOX_JITTER=0.2)
    torch.manual_seed(0)
    model = build_model(cfg)
    pooled = []
    monkeypatch.setattr(
        model.mask_branch.pooler,
        "forward",
        lambda f, boxes: pooled.extend(boxes) or torch.zeros(sum(map(len, boxes)), 32, 14, 14),
    )
    images, targets = batch()
    kept = []
    original = model.mask_branch.jittered
    monkeypatch.setattr(model.mask_branch, "jittered", lambda rois, sizes: kept.extend(rois) or original(rois, sizes))
    model.train()(images, targets)
    moved = (pooled[0] - kept[0].boxes).abs()
    size = (kept[0].boxes[:, 2:] - kept[0].boxes[:, :2]).repeat(1, 2)
    assert bool((moved > 0).any()) and bool((moved <= 0.2 * size + 1e-4).all())
    assert float(pooled[0].min()) >= 0 and float(pooled[0].max()) <= 64


def test_no_jitter_draws_no_random_number():
    """The published configs keep their random draws, and so their results."""
    branch = build_model(box_prompted()).mask_branch
    before = torch.get_rng_state()
    rois = object()
    assert branch.jittered([rois], [(4, 4)]) == [rois]
    assert torch.equal(torch.get_rng_state(), before)


def test_jittered_boxes():
    torch.manual_seed(0)
    boxes = torch.tensor([[10.0, 20, 30, 60]]).repeat(2000, 1)
    moved = jittered_boxes(boxes, 0.25, (70, 31))
    shares = (moved - boxes) / torch.tensor([20.0, 40, 20, 40])
    assert float(shares.abs().max()) <= 0.25 and float(moved[:, 2].max()) == 31  # clipped to the image
    assert torch.allclose(shares[:, :2].mean(0), torch.zeros(2), atol=0.01)
    assert torch.allclose(shares[:, :2].std(0), torch.full((2,), 0.25 / 3**0.5), atol=0.01)
    assert bool((moved[:, 2:] > moved[:, :2]).all())


def test_resized_boxes():
    boxes = torch.tensor([[1.0, 2, 3, 4]])
    assert resized_boxes(boxes, (10, 20), (10, 20)) is boxes
    assert torch.equal(resized_boxes(boxes, (10, 20), (5, 60)), torch.tensor([[3.0, 1, 9, 2]]))


@pytest.mark.parametrize("jitter", [-0.1, 0.5])
def test_jitter_keeps_an_area(jitter):
    with pytest.raises(ValueError, match=rf"BOX_JITTER is {jitter}; it must lie in 0\.\.0\.5"):
        bcnet.config.load_config(opts=["MODEL.ROI_MASK_HEAD.BOX_JITTER", jitter])


def test_trains_evaluates_in_boxes_and_draws(tmp_path):
    spec = write_small_data_set(tmp_path / "data")
    overrides = {"DATASETS__TRAIN": spec, "DATASETS__TEST": spec, "OUTPUT_DIR": str(tmp_path / "out"), "VIS_PERIOD": 2}
    overrides["SOLVER__MAX_ITER"] = 2
    cfg = box_prompted(**overrides, SOLVER__BASE_LR=0.001, MODEL__ROI_MASK_HEAD__BOX_JITTER=0.1)
    metrics = train(cfg)
    found = {name.rsplit("segm_in_boxes/", 1)[1]: value for name, value in metrics.items()}
    assert found["all/instances"] == 10 and 0 <= found["all/mean_iou"] <= 100
    (saved,) = (tmp_path / "out" / "inference").glob("*/metrics.json")
    assert json.loads(saved.read_text())["segm_in_boxes"]["all"]["instances"] == 10
    model = bcnet.load(weights=str(tmp_path / "out" / "model_final.pth"))
    assert model.class_names == ("cup", "plate", "fork") and not model.detects
    (image,), (targets,) = batch()
    (picture,) = draw_training_pictures(model.model, [{"image": image, "targets": targets}], image_format="RGB")
    assert picture.dtype == "uint8" and picture.ndim == 3
