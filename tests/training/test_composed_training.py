"""A training step on composed images, with unknown pixels in the targets."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import DETECTORS, small_config

from bcnet.data import build_train_loader
from bcnet.modeling import build_model
from bcnet.training import train


@pytest.fixture
def data_set(tmp_path):
    """Images of 96 x 128 pixels with two objects each, large enough to be cut out."""
    (tmp_path / "images").mkdir()
    entries, annotations = [], []
    rng = np.random.default_rng(0)
    for n in range(4):
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{n}.png")
        entries.append({"id": n, "file_name": f"{n}.png", "height": 96, "width": 128})
        for k, (x, y) in enumerate(((10, 20), (60, 30))):
            polygon = [x, y, x + 50, y, x + 50, y + 50, x, y + 50]
            box = {"bbox": [x, y, 50, 50], "area": 2500, "iscrowd": 0, "segmentation": [polygon]}
            annotations.append({"id": 2 * n + k, "image_id": n, "category_id": 1 + k, **box})
    categories = [{"id": id, "name": name} for id, name in ((1, "cup"), (2, "plate"), (3, "fork"))]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return f"coco:{tmp_path / 'annotations.json'}:{tmp_path / 'images'}"


def config(detector, data_set, **overrides):
    return small_config(
        detector,
        DATASETS__TRAIN=(data_set,),
        MODEL__BILAYER__OCCLUDER_TARGET="front",
        INPUT__COMPOSITION__ENABLED=True,
        INPUT__COMPOSITION__PROBABILITY=1.0,
        **overrides,
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_losses_and_gradients_are_finite(data_set, detector):
    cfg = config(detector, data_set)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    assert model.mask_branch.target_layers == ("occludee", "occluder")
    occluded = unknown = 0
    for batch in islice(build_train_loader(cfg, layers=model.mask_branch.target_layers), 3):
        targets = [sample["targets"] for sample in batch]
        assert all(t.masks.layers == ("occludee", "occluder", "occluder_unknown") for t in targets)
        occluded += sum(int(t.masks.nonempty("occluder").sum()) for t in targets)
        unknown += sum(int(t.masks.nonempty("occluder_unknown").sum()) for t in targets)
        losses = model([sample["image"] for sample in batch], targets)
        assert {"loss_mask", "loss_occluder_mask", "loss_occluder_boundary"} <= set(losses)
        sum(losses.values()).backward()
        assert all(torch.isfinite(loss) for loss in losses.values())
    assert occluded > 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(p.grad.abs().sum() > 0 for p in model.mask_branch.head.occluder_layer.convs.parameters())


@pytest.mark.parametrize("head", ["BilayerMaskHead", "MaskRCNNConvUpsampleHead"])
def test_training_runs(tmp_path, data_set, head):
    """A plain head trains too: it asks for no occluders."""
    out = tmp_path / "out"
    name = {"MODEL__ROI_MASK_HEAD__NAME": head, "SOLVER__MAX_ITER": 2, "VIS_PERIOD": 1}
    train(config("GeneralizedRCNN", data_set, OUTPUT_DIR=str(out), **name))
    assert (out / "model_final.pth").exists()
    lines = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    assert all(np.isfinite(line["loss_mask"]) for line in lines)
    assert ("loss_occluder_mask" in lines[0]) == (head == "BilayerMaskHead")
