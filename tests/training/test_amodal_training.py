"""Training with MODEL.BILAYER.AMODAL: targets, losses, data sets without amodal masks, checkpoints."""

from __future__ import annotations

import json

import pytest
import torch
from small_models import DETECTORS, finding_detector, small_config, write_small_data_set

from bcnet.checkpoint import load_weights, write_weights
from bcnet.config import load_config
from bcnet.data.synthetic import SceneConfig, generate_dataset
from bcnet.modeling import build_model
from bcnet.modeling.mask_branch import MaskRoIs
from bcnet.prediction import evaluate
from bcnet.prediction.datasets import folder_name
from bcnet.structures import InstanceMasks, Targets
from bcnet.training import train
from bcnet.training.train import prepare_training

AMODAL = {"MODEL__BILAYER__AMODAL": True}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    annotations = generate_dataset(folder, 4, SceneConfig.preset("easy", image_size=64), seed=1)
    return f"coco:{annotations}:{folder / 'images'}"


def losses_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [line["loss_amodal"] for line in lines if "loss_amodal" in line]


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_amodal_loss_falls_on_scenes_with_their_own_truth(scenes, tmp_path, detector):
    cfg = small_config(
        detector,
        DATASETS__TRAIN=(scenes,),
        DATASETS__TEST=(),
        MODEL__ROI_HEADS__NUM_CLASSES=6,
        SOLVER__MAX_ITER=20,
        SOLVER__OPTIMIZER="AdamW",
        SOLVER__BASE_LR=0.002,
        OUTPUT_DIR=str(tmp_path),
        **AMODAL,
    )
    train(cfg)
    losses = torch.tensor(losses_of(tmp_path))
    assert len(losses) == 20 and losses.isfinite().all()
    assert losses[-5:].mean() < 0.9 * losses[:5].mean()


def test_a_data_set_without_amodal_masks_is_named_before_training(tmp_path):
    plain = write_small_data_set(tmp_path / "data")
    cfg = small_config(DATASETS__TRAIN=(plain,), DATASETS__TEST=(), OUTPUT_DIR=str(tmp_path / "out"), **AMODAL)
    message = rf"training set '{plain}': 10 annotations .*MODEL.BILAYER.AMODAL True[\s\S]*annotation 1 .*no amodal"
    with pytest.raises(ValueError, match=message):
        prepare_training(cfg)
    assert not (tmp_path / "out").exists()


def test_targets_are_the_amodal_masks():
    """The loss is the cross-entropy with the amodal layer, whatever the visible one is."""
    _, model = finding_detector(**AMODAL)
    branch = model.mask_branch
    assert branch.target_layers == ("occludee", "occluder", "amodal")
    visible, amodal = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64)
    visible[0, 16:48, 16:32] = amodal[0, 16:48, 16:48] = 1
    boxes, nothing = torch.tensor([[16.0, 16.0, 48.0, 48.0]]), torch.zeros_like(visible)
    masks = InstanceMasks.from_full({"occludee": visible, "occluder": nothing, "amodal": amodal})
    targets = Targets(boxes, torch.tensor([0]), masks)
    for parameter in branch.head.occludee_amodal.predictor.parameters():
        parameter.data.zero_()
    branch.head.occludee_amodal.predictor.bias.data.fill_(2.0)  # every pixel is the object with 1 / (1 + e^-2)
    features = [torch.zeros(1, 32, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]
    losses = branch.losses(features, [MaskRoIs(boxes, torch.tensor([0]))], [targets])
    assert losses["loss_amodal"].item() == pytest.approx(torch.nn.functional.softplus(torch.tensor(-2.0)).item())


def test_rois_of_training_and_inference_are_scaled(monkeypatch):
    _, model = finding_detector(MODEL__ROI_MASK_HEAD__ROI_SCALE=1.5, **AMODAL)
    pooled = []
    pool = model.mask_branch.pooler.forward
    monkeypatch.setattr(model.mask_branch.pooler, "forward", lambda f, b: pooled.append(b) or pool(f, b))
    (found,) = model.inference([torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)])
    assert len(found) and found.roi_scale == 1.5
    assert torch.equal(pooled[0][0], found.map_boxes) and not torch.equal(found.map_boxes, found.boxes)
    # In a RoI of 1.5 times the box, an object that fills its box fills 4/9 of the target.
    boxes = torch.tensor([[16.0, 16.0, 40.0, 40.0]])
    mask = torch.zeros(1, 64, 64)
    mask[0, 16:40, 16:40] = 1
    layers = {"occludee": mask, "occluder": torch.zeros_like(mask), "amodal": mask}
    targets = Targets(boxes, torch.tensor([0]), InstanceMasks.from_full(layers))
    seen = []
    monkeypatch.setattr(model.mask_branch.head, "losses", lambda logits, crops, **options: seen.append(crops) or {})
    features = [torch.zeros(1, 32, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]
    model.mask_branch.losses(features, [MaskRoIs(boxes, torch.tensor([0]))], [targets])
    assert torch.equal(pooled[1][0], torch.tensor([[10.0, 10.0, 46.0, 46.0]]))
    assert seen[0]["amodal"].values.float().mean().item() == pytest.approx(4 / 9, abs=0.04)


def test_a_checkpoint_without_the_map(tmp_path):
    path = str(tmp_path / "published.pth")
    source = build_model(small_config())
    write_weights(source.state_dict(), path)
    model = build_model(small_config(**AMODAL))
    added = {key for key in model.state_dict() if ".occludee_amodal." in key}
    assert added == model.state_dict().keys() - source.state_dict().keys() != set()
    with pytest.raises(ValueError, match=r"occludee_amodal"):
        load_weights(model, path)
    report = load_weights(model, path, strict=False)
    assert set(report.missing) == added
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in source.state_dict().items())


@pytest.mark.parametrize("detector", DETECTORS)
def test_without_the_key_the_model_is_the_published_one(detector):
    torch.manual_seed(0)
    with_map = build_model(small_config(detector, **AMODAL)).state_dict()
    torch.manual_seed(0)
    published = build_model(small_config(detector)).state_dict()
    assert not [key for key in published if "amodal" in key]
    # The new decoder is drawn last in the head: what comes before it starts from the same numbers.
    head = [key for key in published if key.startswith("mask_branch.")]
    assert head and all(torch.equal(published[key], with_map[key]) for key in head)


@pytest.mark.parametrize("augmented", [False, True])
def test_results_file_and_metrics_have_visible_and_amodal(scenes, tmp_path, augmented):
    cfg, model = finding_detector(
        DATASETS__TEST=(scenes,),
        MODEL__ROI_HEADS__NUM_CLASSES=6,
        TEST__AUG__ENABLED=augmented,
        TEST__AUG__MIN_SIZES=(64,),
        OUTPUT_DIR=str(tmp_path),
        **AMODAL,
    )
    metrics = evaluate(cfg, model)[scenes]
    assert {"segm", "amodal", "hidden_part"} <= metrics.keys()
    results = json.loads((tmp_path / "inference" / folder_name(scenes) / "coco_instances_results.json").read_text())
    assert results and all({"segmentation", "amodal_segmentation", "occluded_fraction"} <= r.keys() for r in results)


def test_settings_that_contradict_the_map(tmp_path):
    with pytest.raises(ValueError, match=r"MODEL.BILAYER.AMODAL is True and INPUT.MASK_TARGET 'amodal'"):
        load_config(None, ["MODEL.BILAYER.AMODAL", True, "INPUT.MASK_TARGET", "amodal"], text="VERSION: 2")
    with pytest.raises(ValueError, match=r"ROI_SCALE is 0.0; it must be above 0"):
        load_config(None, ["MODEL.ROI_MASK_HEAD.ROI_SCALE", 0.0], text="VERSION: 2")
    with pytest.raises(ValueError, match=r"the plain head .* has no amodal map"):
        build_model(small_config(MODEL__ROI_MASK_HEAD__NAME="MaskRCNNConvUpsampleHead", **AMODAL))
