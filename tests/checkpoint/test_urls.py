from __future__ import annotations

import shutil
from urllib.error import URLError

import pytest
import torch
from checkpoint_samples import small_model

from bcnet.checkpoint import load_weights, local_path, urls, write_weights

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch):
    def refuse(url, folder, *, filename):
        raise URLError("no network")

    monkeypatch.setattr(urls, "download", refuse)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://host.org/a/model.pth", "https://host.org/a/model.pth"),
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", DETECTRON2),
        ("torchvision://ResNet50", "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"),
        ("torchvision://resnet50.IMAGENET1K_V1", "https://download.pytorch.org/models/resnet50-0676ba61.pth"),
        (
            "torchvision://ResNet50_Weights.IMAGENET1K_V1",
            "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        ),
        (
            "torchvision://maskrcnn_resnet50_fpn",
            "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
        ),
    ],
)
def test_a_download_is_kept(monkeypatch, location, url):
    calls = []

    def download(url, folder, *, filename):
        calls.append(url)
        with open(f"{folder}/{filename}", "w") as file:
            file.write("content")
        return f"{folder}/{filename}"

    monkeypatch.setattr(urls, "download", download)
    path = local_path(location)
    assert calls == [url]
    assert path == urls.cached_path(url)
    with open(path) as file:
        assert file.read() == "content"
    assert local_path(location) == path
    assert calls == [url]


def test_the_cache_is_detectron2s_own(cache):
    assert urls.cached_path(DETECTRON2) == str(cache / "detectron2/ImageNetPretrained/MSRA/R-50.pkl")


def test_equal_names_on_other_hosts_are_kept_apart(cache):
    assert urls.cached_path("https://a.org/x/model.pth") == str(cache / "a.org/x/model.pth")
    assert urls.cached_path("https://b.org/x/model.pth?dl=1") == str(cache / "b.org/x/model.pth")
    assert urls.cached_path("https://b.org/../../x.pth") == str(cache / "b.org/x.pth")


@pytest.mark.usefixtures("offline")
def test_without_a_network(cache, tmp_path):
    with pytest.raises(OSError, match=r"detectron2://.* cannot be downloaded: .*no network") as caught:
        local_path("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    place = cache / "detectron2/ImageNetPretrained/MSRA/R-50.pkl"
    assert DETECTRON2 in str(caught.value) and str(place) in str(caught.value)
    # Which is where it is found.
    place.write_bytes(b"x")
    assert local_path("detectron2://ImageNetPretrained/MSRA/R-50.pkl") == str(place)
    # torchvision's weights are also found where torchvision put them.
    hub = tmp_path / "hub/checkpoints"
    hub.mkdir(parents=True)
    shutil.copy(place, hub / "resnet50-11ad3fa6.pth")
    assert local_path("torchvision://resnet50") == str(hub / "resnet50-11ad3fa6.pth")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("s3://bucket/model.pth", "got 's3://bucket/model.pth'"),
        ("http://host.org/model.pth", "https://host/file"),
        ("https://host.org", "https://host/file"),
        ("detectron2://", "detectron2://name"),
        ("torchvision://resnett50", r"no model 'resnett50'; the nearest names are resnet50"),
        ("torchvision://resnet50.V9", "IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT; got 'V9'"),
    ],
)
def test_bad_addresses(location, message):
    with pytest.raises(ValueError, match=message):
        local_path(location)


def test_paths(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        local_path(str(tmp_path / "none.pth"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.pth").write_bytes(b"x")
    assert local_path("~/model.pth") == str(tmp_path / "model.pth")


def test_loading_from_an_address(cache):
    model, source = small_model(seed=1), small_model(seed=2)
    place = cache / "host.org/bcnet.pth"
    place.parent.mkdir(parents=True)
    write_weights(source.state_dict(), str(place))
    report = load_weights(model, "https://host.org/bcnet.pth")
    assert not report.differs and report.source == "https://host.org/bcnet.pth"
    place.write_bytes(place.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=r"(?s)cannot be read.*downloaded from https://host\.org/bcnet\.pth; delete it"
    ):
        load_weights(model, "https://host.org/bcnet.pth")
