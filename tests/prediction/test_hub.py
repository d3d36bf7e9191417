"""Model folders and the Hugging Face Hub: save_pretrained, hf:// and push_to_hub, against a server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from hub_server import TOKEN, hub_server
from small_models import small_config
from small_predictors import predictor

import bcnet
from bcnet.checkpoint import local_path, read_checkpoint
from bcnet.checkpoint.hub import check_repo_id, upload_folder
from bcnet.cli import main
from bcnet.prediction import Predictor
from bcnet.prediction.datasets import folder_name

DATA_SET = "coco:val.json:images"


@pytest.fixture(scope="module")
def model() -> Predictor:
    return predictor(DATASETS__TEST=(DATA_SET,))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """The model's folder; its files are for reading."""
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on this machine, to which nobody is logged in, and an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs pip install 'bcnet[hub]'")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 300)  # of a busy machine
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 300)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """OUTPUT_DIR of a training: its record, and the metrics of a test set."""
    folder = tmp_path_factory.mktemp("run")
    start = {"command": "bcnet train --config-file a.yaml", "seed": 3, "versions": {"torch": "2.9"}, "hardware": {}}
    (folder / "runs.jsonl").write_text(json.dumps(start) + "\n")
    results = folder / "inference" / folder_name(DATA_SET)
    results.mkdir(parents=True)
    metrics = {"bbox": {"AP": 41.25, "APs": None}, "segm": {"AP": 33.5, "APs": 1.0}}
    (results / "metrics.json").write_text(json.dumps(metrics))
    return folder


def assert_same_model(found: Predictor, expected: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert found.class_names == expected.class_names and not found.training
    states = found.detector.state_dict(), expected.detector.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert found(image, with_occluder=True) == expected(image, with_occluder=True)


def test_a_model_folder_gives_the_same_model(model, tmp_path):
    folder = tmp_path / "new" / "model"
    model.save_pretrained(folder)
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    for source in (folder, str(folder), folder / "model.safetensors"):
        assert_same_model(bcnet.load(source), model)
    # Whoever loads it says where it is computed; all else is the config that it was built from.
    saved, built = json.loads((folder / "config.json").read_text()), yaml.safe_load(model.cfg.dump())
    assert saved["class_names"] == ["cup", "plate", "fork"] and saved["bcnet_version"] == bcnet.__version__
    assert built["MODEL"]["DEVICE"] == "cpu" and saved["config"]["MODEL"].pop("DEVICE") == "cuda"
    del built["MODEL"]["DEVICE"]
    assert saved["config"] == built
    # Files that need the file itself, such as bcnet info, find all of it too.
    assert set(read_checkpoint(local_path(str(folder)))) == {"model", "config", "class_names", "bcnet_version"}


def test_config_json_is_what_counts(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    content["config"]["TEST"]["DETECTIONS_PER_IMAGE"] = 2
    path.write_text(json.dumps({**content, "class_names": ["Tasse", "Teller", "Gabel"]}))
    loaded = bcnet.load(tmp_path)
    assert loaded.class_names[0] == "Tasse" and len(loaded(np.zeros((40, 60, 3), np.uint8))) == 2
    path.write_text(json.dumps({**content, "config": "a.yaml"}))
    with pytest.raises(ValueError, match=r"config\.json': config must be an object of config keys, got a\.yaml"):
        bcnet.load(tmp_path)
    path.write_text(json.dumps({"architectures": ["Another"]}))  # of another library
    with pytest.raises(ValueError, match="holds no config"):
        bcnet.load(tmp_path)


def test_half_precision_halves_the_file(model, saved, tmp_path):
    model.save_pretrained(tmp_path / "half", precision="fp16")
    full, half = (os.path.getsize(folder / "model.safetensors") for folder in (saved, tmp_path / "half"))
    assert half < 0.55 * full
    loaded = bcnet.load(tmp_path / "half").detector.state_dict()
    for name, value in model.detector.state_dict().items():
        rounded = value.half().to(value.dtype) if value.is_floating_point() else value
        assert torch.equal(loaded[name], rounded), name
    with pytest.raises(ValueError, match="saved in 'fp32' or 'fp16', got 'int8'"):
        model.save_pretrained(tmp_path / "x", precision="int8")


def test_what_cannot_be_saved_or_found(model, tmp_path):
    bare = Predictor(model.model, augmentation=model.augmentation)
    with pytest.raises(ValueError, match=r"only a model with a config can be saved.*bcnet\.load"):
        bare.save_pretrained(tmp_path / "bare")
    assert not (tmp_path / "bare").exists()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors, which save_pretrained writes$"):
        bcnet.load(tmp_path)
    (tmp_path / "model_final.pth").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"name one of its weights files: model_final\.pth"):
        bcnet.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not the OUTPUT_DIR of a training: it has neither runs\.jsonl"):
        model.save_pretrained(tmp_path / "x", run=tmp_path)


def test_test_time_augmentation_is_saved_as_it_was_configured(tmp_path):
    augmented = {"TEST__AUG__ENABLED": True, "TEST__AUG__MIN_SIZES": (64,), "TEST__AUG__MAX_SIZE": 64}
    model = predictor(**augmented)
    model.save_pretrained(tmp_path)
    loaded = bcnet.load(tmp_path)
    assert loaded.cfg.INPUT.MIN_SIZE_TEST == small_config().INPUT.MIN_SIZE_TEST == 64
    assert_same_model(loaded, model)


def test_the_card_quotes_the_run(model, run, tmp_path):
    model.save_pretrained(tmp_path, run=run, license="cc-by-4.0")
    card = (tmp_path / "README.md").read_text()
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "bcnet",
        "pipeline_tag": "image-segmentation",
        "tags": ["instance-segmentation", "occlusion", "depth-order"],
        "license": "cc-by-4.0",
    }
    for said in (
        "Faster R-CNN, ResNet-18-FPN, mask head: bilayer",
        f'bcnet.load("{tmp_path}")',
        "Classes: cup, plate, fork.",
        f"`{DATA_SET}`:",
        "bbox  41.25     -\nsegm  33.50  1.00",
        "bcnet train --config-file a.yaml",
        "| seed | 3 |",
        "| versions | torch 2.9 |",
        "Weights: cc-by-4.0.",
    ):
        assert said in body, said
    # People edit their cards.
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path, run=run)
    assert (tmp_path / "README.md").read_text() == "mine"
    model.save_pretrained(tmp_path, replace_card=True)
    card = (tmp_path / "README.md").read_text()
    assert "No results came with the weights." in card and "named no licence" in card and "license:" not in card


def test_push_and_load(model, hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    url = model.push_to_hub("me/shapes", run=run, license="mit", private=True, message="First")
    assert url == f"{hub.url}/me/shapes" and hub.messages == ["First"] and hub.private == {"me/shapes"}
    assert sorted(hub.repos["me/shapes"]) == ["README.md", "config.json", "model.safetensors"]
    assert 'bcnet.load("hf://me/shapes")' in hub.repos["me/shapes"]["README.md"].decode()
    assert_same_model(bcnet.load("hf://me/shapes"), model)
    paths = {
        local_path(f"hf://me/shapes{rest}")
        for rest in ("@main", f"@{hub.commit('me/shapes')}", "/model.safetensors", "@main/model.safetensors")
    }
    assert paths == {local_path("hf://me/shapes")}


def test_a_repository_keeps_its_card(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repos["me/shapes"] = {"README.md": b"mine"}
    for name in ("README.md", "config.json"):
        (tmp_path / name).write_text("new")
    upload_folder(str(tmp_path), "hf://me/shapes", message="m")
    assert hub.repos["me/shapes"] == {"README.md": b"mine", "config.json": b"new"}
    upload_folder(str(tmp_path), "me/shapes", message="m", replace_card=True)
    assert hub.repos["me/shapes"] == {"README.md": b"new", "config.json": b"new"}


def test_a_model_in_the_cache_needs_no_network(model, saved, hub, monkeypatch):
    hub.repos["me/shapes"] = {path.name: path.read_bytes() for path in saved.iterdir()}
    local_path("hf://me/shapes")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert_same_model(bcnet.load("hf://me/shapes"), model)
    with pytest.raises(OSError, match=r"(?s)hf://me/other cannot be downloaded: .*network.*hf download me/other "):
        bcnet.load("hf://me/other")
    with pytest.raises(OSError, match=r"^the model cannot be uploaded to http://127\.0\.0\.1:9/me/shapes: Conn"):
        upload_folder(str(saved), "me/shapes", message="m")


def test_what_the_hub_does_not_have_or_allow(saved, hub):
    hub.repos["me/empty"] = {"notes.txt": b"x"}
    with pytest.raises(PermissionError, match=r"does not let you write to 'me/shapes'.*hf auth login"):
        upload_folder(str(saved), "me/shapes", message="m")
    with pytest.raises(FileNotFoundError, match=r"/me/absent does not exist, or is private: .*hf auth login"):
        bcnet.load("hf://me/absent")
    with pytest.raises(FileNotFoundError, match=r"the repository has no revision 'v2'"):
        bcnet.load("hf://me/empty@v2")
    with pytest.raises(FileNotFoundError, match=r"has no file 'model\.safetensors'; name one .* hf://me/empty/FILE"):
        bcnet.load("hf://me/empty")
    with pytest.raises(FileNotFoundError, match=r"the repository has no file 'other\.pth'"):
        bcnet.load("hf://me/empty/other.pth")


@pytest.mark.parametrize("name", ["hf://", "hf://name", "hf://a b/c"])
def test_names_of_another_form(name):
    with pytest.raises(ValueError, match=r"a model on the Hub is hf://owner/name\[@revision\]\[/file\]"):
        local_path(name)
    with pytest.raises(ValueError, match="a repository on the Hub is owner/name"):
        check_repo_id(name)


def test_without_huggingface_hub(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: bcnet.load("hf://me/shapes"), lambda: model.push_to_hub("me/shapes")):
        with pytest.raises(ImportError, match=r"hf://me/shapes needs .*: pip install 'bcnet\[hub\]'"):
            use()


def test_the_command(saved, hub, run, tmp_path, capsys, monkeypatch):
    weights = run / "model.safetensors"
    for name in ("model.safetensors", "config.json"):
        shutil.copy(saved / name, run / name)
    main(["push", "--weights", str(weights), "--folder", str(tmp_path / "second"), "--license", "mit"])
    assert "saved to" in capsys.readouterr().out
    assert "bcnet train --config-file a.yaml" in (tmp_path / "second" / "README.md").read_text()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    main(["push", "--weights", str(weights), "--repo", "hf://me/shapes", "--precision", "fp16"])
    assert capsys.readouterr().out == f"uploaded to {hub.url}/me/shapes; it loads as hf://me/shapes\n"
    assert len(hub.repos["me/shapes"]["model.safetensors"]) < 0.55 * os.path.getsize(weights)
    with pytest.raises(SystemExit):
        main(["push", "--weights", str(weights), "--repo", "shapes"])
    assert "a repository on the Hub is owner/name, got 'shapes'" in capsys.readouterr().err
