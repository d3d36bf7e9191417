from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import DETECTORS, small_config

import bcnet
from bcnet.checkpoint import write_checkpoint
from bcnet.engine import Predictor
from bcnet.modeling import build_model


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def predictor(detector="GeneralizedRCNN", **overrides) -> Predictor:
    torch.manual_seed(0)
    cfg = small_config(
        detector, MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0, MODEL__FCOS__SCORE_THRESH_TEST=0.0, **overrides
    )
    return Predictor.from_config(cfg, build_model(cfg), ("cup", "plate", "fork")).eval()


@pytest.mark.parametrize("detector", DETECTORS)
def test_predicts_in_image_coordinates(detector, image):
    model = predictor(detector)
    found = model.predict(image)
    assert found.image_size == (40, 60)
    assert 0 < len(found) <= 10
    assert found.masks.shape == (len(found), 40, 60)
    assert found.masks.dtype == torch.bool
    assert found.class_names == ("cup", "plate", "fork")
    assert (found.boxes >= 0).all() and (found.boxes[:, 2] <= 60).all() and (found.boxes[:, 3] <= 40).all()
    assert found.occluder_mask is None

    everything = model.predict(image, with_occluder=True)
    assert torch.allclose(everything.boxes, found.boxes, atol=1e-4)
    for name in ("masks", "boundaries", "occluder_masks", "occluder_boundaries"):
        assert getattr(everything, name).shape == (len(found), 40, 60)


class Recorder(torch.nn.Module):
    """A detector that keeps the image it was given and finds nothing."""

    num_classes = 1
    device = torch.device("cpu")

    def inference(self, images, with_occluder=False):
        (self.image,) = images
        size = self.image.shape[1:]
        none = torch.zeros(0)
        return [bcnet.structures.Detections(tuple(size), none.reshape(0, 4), none, none.long())]


def prepared(image, format="BGR", **overrides) -> torch.Tensor:
    """The tensor that the detector gets, [h, w, 3]."""
    model = Recorder()
    Predictor.from_config(small_config(**overrides), model).predict(image, format)
    return model.image.permute(1, 2, 0)


def test_resizes_with_pils_filter(image):
    expected = np.asarray(Image.fromarray(image).resize((64, 43), Image.Resampling.BILINEAR))
    resized = prepared(image)
    assert resized.dtype == torch.uint8
    assert np.array_equal(resized.numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_go_through_the_same_filter(image, dtype):
    resized = prepared(image.astype(dtype))
    assert resized.dtype == torch.float32
    assert (resized - prepared(image).float()).abs().max() <= 1.0
    assert torch.equal(prepared(image.astype(dtype), INPUT__MIN_SIZE_TEST=0), torch.from_numpy(image).float())


def test_min_size_zero_leaves_the_size(image):
    assert np.array_equal(prepared(image, INPUT__MIN_SIZE_TEST=0).numpy(), image)


@pytest.mark.parametrize("own", ["BGR", "RGB"])
@pytest.mark.parametrize("given", ["BGR", "RGB"])
def test_channel_order(image, own, given):
    tensor = prepared(image, given, INPUT__FORMAT=own, INPUT__MIN_SIZE_TEST=0).numpy()
    assert np.array_equal(tensor, image if own == given else image[:, :, ::-1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.zeros((4, 4, 3), bool), "got bool"),
        (np.full((4, 4, 3), 256.0), r"got 256\.\.256"),
        (np.full((4, 4, 3), -1.0, np.float32), r"got -1\.\.-1"),
        (np.full((4, 4, 3), np.nan), r"got nan\.\.nan"),
        (torch.zeros(4, 4, 3), "got Tensor"),
        (None, "got NoneType"),
    ],
)
def test_bad_images(bad, message):
    with pytest.raises(ValueError, match=message):
        Predictor.from_config(small_config(), Recorder()).predict(bad)


def test_bad_format(image):
    with pytest.raises(ValueError, match="got 'rgb'"):
        Predictor.from_config(small_config(), Recorder()).predict(image, "rgb")


def test_values_up_to_one_are_suspicious(image, caplog):
    prepared(image / 255)
    assert "0..255 is expected" in caplog.text


def test_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="2 class names were given for a model of 1 classes"):
        Predictor.from_config(small_config(), Recorder(), ("cup", "plate"))


def test_load(tmp_path, image):
    model = predictor().model
    cfg = small_config(MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    weights = str(tmp_path / "model_final.pth")
    write_checkpoint({"model": model.state_dict(), "class_names": ["cup", "plate", "fork"]}, weights)

    loaded = bcnet.load(str(tmp_path / "config.yaml"), weights)
    assert not loaded.training
    assert loaded.class_names == ("cup", "plate", "fork")
    assert all(torch.equal(value, loaded.model.state_dict()[key]) for key, value in model.state_dict().items())
    from_key = bcnet.load(str(tmp_path / "config.yaml"), opts=["MODEL.WEIGHTS", weights])
    assert torch.equal(from_key.predict(image).boxes, loaded.predict(image).boxes)

    with pytest.raises(ValueError, match=r"do not fit the model"):
        bcnet.load(str(tmp_path / "config.yaml"), weights, ["MODEL.ROI_HEADS.NUM_CLASSES", 4])
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        bcnet.load(str(tmp_path / "absent.yaml"))


def test_load_without_weights_says_so(tmp_path, caplog):
    (tmp_path / "config.yaml").write_text(small_config().dump())
    loaded = bcnet.load(tmp_path / "config.yaml")
    assert "the model is random" in caplog.text
    assert loaded.class_names == ()
