"""Where weights are: a path, or a URL that is downloaded once and kept.

``https://...``
``detectron2://ImageNetPretrained/MSRA/R-50.pkl`` and everything else in detectron2's model zoo
``torchvision://maskrcnn_resnet50_fpn`` (the weights that torchvision calls DEFAULT) or
``torchvision://ResNet50_Weights.IMAGENET1K_V1``

Downloads are kept in the folder that the environment variable FVCORE_CACHE names, otherwise in
``~/.torch/iopath_cache``: detectron2's cache, so that neither downloads what the other has.
"""

from __future__ import annotations

import difflib
import os
from urllib.parse import urlparse

import torch
import torchvision
from iopath.common.download import download
from iopath.common.file_io import file_lock, get_cache_dir

_DETECTRON2_HOST = "dl.fbaipublicfiles.com"
_DETECTRON2_ZOO = f"https://{_DETECTRON2_HOST}/detectron2/"


def local_path(location: str) -> str:
    """The file at a path or URL, downloaded unless it is there already.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of URL, or weights that torchvision does not have.
        OSError: the download failed; says what to download and where to put it.
    """
    location = os.fspath(location)
    if "://" not in location:
        path = os.path.expanduser(location)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"checkpoint not found: {path!r}")
        return path
    url = _url(location)
    path = cached_path(url)
    if os.path.isfile(path):
        return path
    # torchvision's own cache.
    in_hub = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(path))
    if location.startswith("torchvision://") and os.path.isfile(in_hub):
        return in_hub
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with file_lock(path):  # one process of a machine downloads, the others find the file
            return download(url, os.path.dirname(path), filename=os.path.basename(path))
    except OSError as error:
        raise OSError(
            f"{location} cannot be downloaded: {error}. On a machine with a network, download\n  {url}\n"
            f"and put the file here under the name\n  {path}\n"
            "or give its path instead of the URL. Another cache folder can be named by the environment variable "
            "FVCORE_CACHE."
        ) from error


def cached_path(url: str) -> str:
    """Where the download of an https URL is kept."""
    parsed = urlparse(url)
    # detectron2 leaves the host out; for other hosts it keeps equal file names apart.
    folder = "" if parsed.hostname == _DETECTRON2_HOST else parsed.hostname
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
        f"weights are a path, https://host/file, detectron2://name or torchvision://model; got {location!r}"
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
