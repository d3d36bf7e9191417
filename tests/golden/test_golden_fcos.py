"""The stand-alone BCNet FCOS against the published code, on equal weights."""

from __future__ import annotations

import json

import golden_values
import numpy as np
import pytest
import torch
from mask_layers import two_layers
from pycocotools import mask as coco_mask

from bcnet.bilayer import MapTarget, select_class
from bcnet.structures import Targets

NAME = "fcos_R_50"


@pytest.fixture(scope="module")
def golden():
    return golden_values.load(NAME)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return golden_values.model(NAME, "fcos/fcos_imprv_R_50_FPN.yaml", ["MODEL.FCOS.SCORE_THRESH_TEST", 0.05], folder)


@pytest.fixture(scope="module")
def features(model):
    with torch.no_grad():
        return model.features([golden_values.image()])


def test_features(golden, features):
    maps, image_sizes = features
    assert image_sizes == [(250, 310)]
    assert list(maps) == ["p3", "p4", "p5", "p6", "p7"]
    for name, feature in maps.items():
        golden_values.assert_samples(golden, f"feat_{name}", feature)
        assert float(feature.std()) == pytest.approx(float(golden[f"feat_{name}_std"]), rel=1e-4)


def test_predictions(golden, model, features):
    maps = list(features[0].values())
    with torch.no_grad():
        output, points = model.predict_points(features[0])
    sizes = [len(p) for p in points]
    levels = zip(
        maps,
        (8, 16, 32, 64, 128),
        output.logits.split(sizes, dim=1),
        output.distances.split(sizes, dim=1),
        output.centerness.split(sizes, dim=1),
        strict=True,
    )
    for level, (feature, stride, logits, distances, centerness) in enumerate(levels):
        height, width = feature.shape[-2:]
        golden_values.assert_samples(golden, f"logits{level}", as_maps(logits, height, width))
        golden_values.assert_samples(golden, f"ltrb{level}", as_maps(distances * stride, height, width))
        golden_values.assert_samples(golden, f"centerness{level}", as_maps(centerness[..., None], height, width))


def as_maps(values, height, width):
    """[B, P, D] to [B, D, H, W]."""
    return values.transpose(1, 2).unflatten(2, (height, width))


def test_bilayer_head_on_fixed_boxes(golden, model, features):
    boxes = [torch.from_numpy(golden["fixed_boxes"])]
    pooled = model.mask_branch.pooler(list(features[0].values()), boxes)
    with torch.no_grad():
        logits = model.mask_branch.head(pooled)
        mask_alone = model.mask_branch.head(pooled, ["occludee_mask"])["occludee_mask"]
    for name, key in (
        ("occludee_mask", "fixed_mask_logits"),
        ("occludee_boundary", "fixed_boundary_logits"),
        ("occluder_mask", "fixed_mask_occluder_logits"),
        ("occluder_boundary", "fixed_boundary_occluder_logits"),
    ):
        golden_values.assert_close(logits[name], golden[key], name)
    assert torch.equal(mask_alone, logits["occludee_mask"])


def test_detections_and_masks(golden, model):
    (detections,) = model.inference([golden_values.image()])
    assert len(detections) == 100
    pairs = golden_values.match_detections(golden, detections)
    assert len(pairs) >= 98
    areas = detections.masks.flatten(1).sum(dim=1)
    near = [
        abs(int(areas[own]) - int(area)) <= 0.01 * area for i, own in pairs for area in [golden["det_mask_area"][i]]
    ]
    assert sum(near) >= 98


@pytest.fixture(scope="module")
def ground_truth(golden):
    boxes = torch.from_numpy(golden["gt_boxes"]).float()
    empty = torch.zeros(len(boxes), 250, 310, dtype=torch.bool)
    return Targets(boxes, torch.from_numpy(golden["gt_classes"]), two_layers(empty, empty))


def test_fcos_losses(golden, model, features, ground_truth):
    with torch.no_grad():
        losses, _ = model.detection_losses(features[0], features[1], [ground_truth])
    for name, key in (
        ("loss_cls", "train_loss_cls"),
        ("loss_box_reg", "train_loss_reg"),
        ("loss_centerness", "train_loss_centerness"),
    ):
        assert float(losses[name]) == pytest.approx(float(golden[key]), rel=1e-3), name


def test_bilayer_losses(golden, model, features, ground_truth):
    # The reference's targets: polygons moved and scaled into the frame of the box, and rasterised there.
    polygons = [golden[f"gt_poly{i}"] for i in range(4)]
    occluders = json.loads(str(golden["gt_occluders"]))
    occludee = [raster([polygon], box) for polygon, box in zip(polygons, golden["gt_boxes"], strict=True)]
    occluder = [
        raster([polygons[j] for j in others], box) for others, box in zip(occluders, golden["gt_boxes"], strict=True)
    ]
    layers = {
        "occludee": MapTarget(torch.from_numpy(np.stack(occludee))),
        "occluder": MapTarget(torch.from_numpy(np.stack(occluder))),
    }

    head = model.mask_branch.head
    statistics = {key: value.clone() for key, value in head.state_dict().items() if "norm" in key}
    head.train()  # the graph convolution's BatchNorm uses the statistics of these four RoIs
    try:
        with torch.no_grad():
            pooled = model.mask_branch.pooler(list(features[0].values()), [ground_truth.boxes])
            logits = select_class(head(pooled), ground_truth.classes)
    finally:
        head.eval()
        head.load_state_dict(statistics, strict=False)
    occludee_losses = head.losses(logits, layers)
    # The reference takes its occluder losses over RoIs 0-2, those with an occluder, and these once more.
    occluder_losses = head.losses(logits, layers, negative_ratio=0)
    assert layers["occluder"].values.flatten(1).any(dim=1).tolist() == [True, True, True, False]
    for losses, name, key in (
        (occludee_losses, "loss_mask", "train_loss_mask"),
        (occludee_losses, "loss_mask_boundary", "train_loss_boundary"),
        (occluder_losses, "loss_occluder_mask", "train_loss_mask_bo"),
        (occluder_losses, "loss_occluder_boundary", "train_loss_boundary_bo"),
    ):
        assert float(losses[name]) == pytest.approx(float(golden[key]), rel=1e-3), name


def raster(polygons, box, side=28):
    """Polygons in the frame of a box: bool [side, side]."""
    if not polygons:
        return np.zeros((side, side), dtype=bool)
    x0, y0, x1, y1 = box
    scale = np.array([side / max(x1 - x0, 0.1), side / max(y1 - y0, 0.1)])
    moved = [((p.reshape(-1, 2) - [x0, y0]) * scale).reshape(-1).tolist() for p in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(moved, side, side))).astype(bool)
