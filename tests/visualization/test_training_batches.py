"""What TensorBoard shows of a run."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import DETECTORS, small_config, write_small_data_set
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bcnet.data import build_train_loader
from bcnet.modeling import build_model
from bcnet.training import train
from bcnet.visualization.training_batches import PANEL_SIDE, draw_training_pictures


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    return write_small_data_set(tmp_path_factory.mktemp("data") / "small")


@pytest.mark.parametrize("detector", DETECTORS)
def test_tensorboard_has_curves_and_pictures(tmp_path, data_set, detector):
    common = {"DATASETS__TRAIN": (data_set,), "MODEL__ROI_HEADS__NUM_CLASSES": 3, "SOLVER__MAX_ITER": 4}
    for name, period in (("plain", 0), ("drawn", 2)):
        train(small_config(detector, OUTPUT_DIR=str(tmp_path / name), VIS_PERIOD=period, **common))
    events = EventAccumulator(str(tmp_path / "drawn"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    losses = {
        "total_loss",
        "loss_cls",
        "loss_mask",
        "loss_mask_boundary",
        "loss_occluder_mask",
        "loss_occluder_boundary",
    }
    speed = {"lr", "images_per_second", "data_time", "time", "eta_seconds"}
    assert losses | speed <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss_occluder_mask")] == [0, 1, 2, 3]
    assert all(event.value > 0 for event in events.Scalars("images_per_second"))

    assert set(events.Tags()["images"]) == {"training/0", "training/1"}
    assert [event.step for event in events.Images("training/0")] == [1, 3]
    picture = np.asarray(Image.open(io.BytesIO(events.Images("training/0")[0].encoded_image_string)))
    assert picture.shape[1] >= 3 * PANEL_SIDE  # detections, occluder layer, occludee layer
    assert picture.std() > 20

    # Drawing changes nothing in training.
    plain, drawn = (torch.load(tmp_path / name / "model_final.pth", weights_only=True) for name in ("plain", "drawn"))
    assert all(torch.equal(value, drawn["model"][key]) for key, value in plain["model"].items())


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"MODEL__ROI_MASK_HEAD__NAME": "MaskRCNNConvUpsampleHead"},
        {"MODEL__MASK_ON": False},
        {"MODEL__ROI_HEADS__NUM_CLASSES": 5},  # more than the data set has names for
    ],
)
def test_every_kind_of_model_can_be_drawn(data_set, overrides):
    cfg = small_config(
        DATASETS__TRAIN=(data_set,), MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0, INPUT__FORMAT="RGB", **overrides
    )
    model = build_model(cfg).train()
    loader = build_train_loader(cfg)
    batch = next(loader)
    pictures = draw_training_pictures(model, batch, image_format="RGB", class_names=loader.info.class_names)
    assert len(pictures) == 2 and model.training
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in pictures)
    panels = 1 if not cfg.MODEL.MASK_ON else 3 if cfg.MODEL.ROI_MASK_HEAD.NAME == "BilayerMaskHead" else 2
    assert pictures[0].shape[1] // PANEL_SIDE == panels
    assert len(draw_training_pictures(model, batch, image_format="RGB", max_images=1)) == 1
