"""Loading of models: config and weights from files, the config and names inside weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import small_config
from small_predictors import assert_same_detections, predictor

import bcnet
from bcnet.checkpoint import convert_checkpoint, write_checkpoint
from bcnet.prediction import Predictor
from bcnet.prediction.loading import config_of_weights


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


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


def test_load_with_the_config_saved_in_the_weights(tmp_path, image):
    model = predictor().model
    weights = tmp_path / "model_final.pth"
    cfg = small_config(MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0)
    write_checkpoint({"model": model.state_dict(), "config": cfg.dump()}, str(weights))
    loaded = bcnet.load(weights=weights, opts=["TEST.DETECTIONS_PER_IMAGE", 3])
    assert_same_detections(loaded.predict(image), Predictor.from_config(cfg, model).predict(image)[:3])
    loaded = bcnet.load(opts=["MODEL.WEIGHTS", str(weights), "TEST.DETECTIONS_PER_IMAGE", 3])
    assert_same_detections(loaded.predict(image), Predictor.from_config(cfg, model).predict(image)[:3])

    write_checkpoint({"model": model.state_dict()}, str(weights))
    with pytest.raises(ValueError, match=r"name a config file: .*model_final\.pth' holds no config"):
        bcnet.load(weights=weights)
    with pytest.raises(ValueError, match="name a config file: there are no weights"):
        bcnet.load()
    write_checkpoint({"model": model.state_dict(), "config": "MODEL:\n  WEIGHT: 1\n"}, str(weights))
    with pytest.raises(KeyError, match=r"'MODEL.WEIGHT' in the config in .*model_final\.pth'"):
        bcnet.load(weights=weights)


def test_the_folder_of_a_training_is_taken_over_with_the_weights_that_lie_in_it(tmp_path):
    """Weights of another machine name a folder of that machine, where an evaluation would write."""
    run = tmp_path / "run"
    cfg = small_config(OUTPUT_DIR=str(run))
    content = {"model": predictor().model.state_dict(), "config": cfg.dump()}
    for folder, expected in ((run, str(run)), (tmp_path / "downloads", "./output")):
        folder.mkdir()
        write_checkpoint(content, str(folder / "model_final.pth"))
        assert config_of_weights(str(folder / "model_final.pth")).OUTPUT_DIR == expected
    given = config_of_weights(str(tmp_path / "downloads" / "model_final.pth"), ["OUTPUT_DIR", str(run)])
    assert given.OUTPUT_DIR == str(run)


def test_the_weights_file_is_read_once(tmp_path, monkeypatch):
    cfg = small_config()
    weights = str(tmp_path / "model_final.pth")
    content = {"model": predictor().model.state_dict(), "config": cfg.dump(), "class_names": ["cup", "plate", "fork"]}
    write_checkpoint(content, weights)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    read, calls = torch.load, []
    monkeypatch.setattr(
        torch, "load", lambda path, *args, **keywords: calls.append(path) or read(path, *args, **keywords)
    )
    for arguments in (
        {"weights": weights},
        {"config_file": tmp_path / "config.yaml", "opts": ["MODEL.WEIGHTS", weights]},
    ):
        calls.clear()
        assert bcnet.load(**arguments).class_names == ("cup", "plate", "fork")
        assert calls == [weights]


def test_a_config_whose_weights_only_start_a_training(tmp_path):
    backbone = {key: value for key, value in predictor().model.state_dict().items() if key.startswith("backbone.")}
    write_checkpoint({"model": backbone}, str(tmp_path / "backbone.pth"))
    (tmp_path / "config.yaml").write_text(small_config(MODEL__WEIGHTS=str(tmp_path / "backbone.pth")).dump())
    message = r"config\.yaml, '.*backbone\.pth', are no trained model.* train first \(bcnet train .*load\("
    with pytest.raises(ValueError, match=message):
        bcnet.load(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="tensors"):  # given by name: the table of what is missing
        bcnet.load(tmp_path / "config.yaml", tmp_path / "backbone.pth")


def test_load_recognises_weights_and_takes_a_device(tmp_path, image):
    cfg = small_config(MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0, MODEL__DEVICE="cuda")
    model = predictor().model
    weights = tmp_path / "model_final.pth"
    content = {"model": model.state_dict(), "config": cfg.dump(), "class_names": ["cup", "plate", "fork"]}
    write_checkpoint(content, str(weights))
    loaded = bcnet.load(weights, device="cpu")
    assert loaded.class_names == ("cup", "plate", "fork") and str(loaded.device) == "cpu"
    bare = tmp_path / "model"  # without a suffix
    bare.write_bytes(weights.read_bytes())
    assert bcnet.load(str(bare), device=torch.device("cpu")).num_classes == 3
    with pytest.raises(ValueError, match=r"MODEL\.DEVICE must be a device such as .* got 'cdua'"):
        bcnet.load(weights, device="cdua")
    # The number of classes is that of the weights, unless it was given by hand.
    other = tmp_path / "other.yaml"
    other.write_text(cfg.dump().replace("NUM_CLASSES: 3", "NUM_CLASSES: 80"))
    assert bcnet.load(other, weights, device="cpu").num_classes == 3
    with pytest.raises(ValueError, match="do not fit the model"):
        bcnet.load(other, weights, ["MODEL.ROI_HEADS.NUM_CLASSES", 80], device="cpu")
    for saved in ({"config": f"{cfg.dump()}OF_ANOTHER_VERSION: 1\n"}, {"class_names": ["cup", "plate", "fork"]}):
        write_checkpoint({"model": model.state_dict(), **saved}, str(weights))
        assert bcnet.load(other, weights, device="cpu").num_classes == 3
    with pytest.raises(FileNotFoundError, match=r"checkpoint not found: 'absent\.pth'"):
        bcnet.load("absent.pth")
    with pytest.raises(FileNotFoundError, match="nearest that comes with the package"):
        bcnet.load("quick/bcnet_fcos")


def test_safetensors_carry_config_and_class_names(tmp_path):
    cfg = small_config()
    weights, output = str(tmp_path / "model_final.pth"), str(tmp_path / "model.safetensors")
    content = {"model": predictor().model.state_dict(), "config": cfg.dump(), "class_names": ["cup", "täßchen", "fork"]}
    write_checkpoint(content, weights)
    convert_checkpoint(weights, output)
    loaded = bcnet.load(output)
    assert loaded.class_names == ("cup", "täßchen", "fork")
    assert all(torch.equal(value, loaded.model.state_dict()[key]) for key, value in content["model"].items())
