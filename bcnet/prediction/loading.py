"""Models for prediction (`bcnet.load`): config and weights from files, or an exported file."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import yaml

from bcnet.checkpoint import load_weights, local_path, read_model_file
from bcnet.checkpoint.packaged import is_packaged_model, suggestion
from bcnet.config import CfgNode, Level, get_cfg, load_config
from bcnet.data import dataset_files, load_dataset
from bcnet.exported_files import exported_file, refuse_exported
from bcnet.modeling import build_model
from bcnet.modeling.precision import precision_dtype
from bcnet.prediction.predictor import Predictor

if TYPE_CHECKING:
    from bcnet.export.runtime import ExportedPredictor

logger = logging.getLogger(__name__)

_CONFIG_SUFFIXES = (".yaml", ".yml")
_WEIGHTS_SUFFIXES = (".pth", ".pt", ".pkl", ".safetensors", ".ckpt", ".bin")
_NUM_CLASSES = "MODEL.ROI_HEADS.NUM_CLASSES"


def load(
    config_file: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    opts: Sequence[object] = (),
    *,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> Predictor | ExportedPredictor:
    """A model with its weights in place, in eval mode.

    ``bcnet.load("model_final.pth")`` suffices for weights that bcnet trained: they carry their config and the names of
    their classes. So does a folder of `Predictor.save_pretrained`, and a model on the Hugging Face Hub,
    ``bcnet.load("hf://owner/name")``. Others need a config,
    ``bcnet.load("faster_rcnn/bcnet_R_50_FPN_3x.yaml", "weights.pkl")``.

    A file of ``bcnet export`` is all there is to a model, ``bcnet.load("model.onnx")``: what comes back predicts and
    segments as a `Predictor` does, with the same results (`bcnet.export.ExportedPredictor`).

    Args:
        config_file: YAML file, or the name of one that comes with the package (``fcos/fcos_imprv_R_50_FPN.yaml``); None
            takes the config that training saved with the weights. Weights may stand here alone, and so may the name of
            a model that comes with the package ("lite").
        weights: weights file, model folder or URL (see `bcnet.checkpoint`), which is read once; None takes
            MODEL.WEIGHTS of the config, "" leaves the model random. Or an exported file.
        opts: ``KEY VALUE`` pairs in one list, e.g. ``["TEST.DETECTIONS_PER_IMAGE", 20]``.
        device: "cpu", "cuda", "cuda:1"; None takes MODEL.DEVICE of the config, and the CPU on a machine without a GPU.
        precision: "fp32"; or "bf16" or "fp16" for autocast, which GPUs (and, for bf16, some CPUs) compute faster in.
            The precision of the training, SOLVER.AMP, does not matter here.

    Raises:
        FileNotFoundError: no such config or weights file.
        KeyError: an unknown config key.
        ValueError: a config value that makes no sense, weights that do not fit the model (with a table), no config
            file and none in the weights file, or an unknown precision.
        ImportError: ``hf://`` needs huggingface_hub, an exported file the package that runs it.
        OSError: a download failed; says what to do.
    """
    if (exported := exported_file(config_file, weights, opts)) is None:
        return load_predictor(config_file, weights, opts, device=device, precision=precision)
    if device is not None:
        raise ValueError(f"device {str(device)!r} cannot be chosen for {exported!r}, an exported model")
    from bcnet.export.runtime import ExportedPredictor

    return ExportedPredictor.load(exported, tensors=True, precision=precision)


def load_predictor(
    config_file: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    opts: Sequence[object] = (),
    *,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> Predictor:
    """As `load`, for weights alone.

    Raises:
        ValueError: as `load`; an exported file.
    """
    precision_dtype(precision)  # an unknown one is an error before the weights are read
    if config_file is None and weights is None:
        weights = load_config(None, opts).MODEL.WEIGHTS or None
    for name in (config_file, weights):
        refuse_exported(name)
    if weights is None and config_file is not None and _is_weights(os.fspath(config_file)):
        config_file, weights = None, config_file
    if device is not None:
        opts = [*opts, "MODEL.DEVICE", str(device)]
    source: str | None = None if weights is None else os.fspath(weights)
    content = read_model_file(source) if source else None
    if config_file is not None:
        try:
            cfg = load_config(os.fspath(config_file), opts)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}{suggestion(config_file)}") from error
    else:
        cfg = config_of_weights(source, opts, content=content)
    if source is None and cfg.MODEL.WEIGHTS:
        source = str(cfg.MODEL.WEIGHTS)
        content = read_model_file(source)
    cfg = with_classes_of_weights(cfg, content)
    model = build_model(cfg)
    if source and content is not None:
        try:
            load_weights(model, source, content=content)
        except ValueError as error:
            if weights is not None or config_file is None:
                raise
            raise ValueError(
                f"MODEL.WEIGHTS of {config_file}, {source!r}, are no trained model of it. If they are what training "
                f"starts from, train first (bcnet train --config-file {config_file}); trained weights are given beside "
                f'the config: bcnet.load("{config_file}", "model_final.pth")'
            ) from error
    else:
        logger.warning("No weights were given and MODEL.WEIGHTS is empty: the model is random")
    class_names = _class_names(cfg, (content or {}).get("class_names") or ())
    return Predictor.from_config(cfg, model, class_names, precision=precision).eval()


def _is_weights(name: str) -> bool:
    """Whether a name stands for weights: by its suffix, as a URL, as a file or folder that is no YAML, or a model's."""
    lower = name.lower()
    if lower.endswith(_CONFIG_SUFFIXES):
        return False
    if is_packaged_model(name):
        return True
    return lower.endswith(_WEIGHTS_SUFFIXES) or "://" in name or os.path.exists(os.path.expanduser(name))


def config_of_weights(weights: str | None, opts: Sequence[object] = (), *, content: Mapping | None = None) -> CfgNode:
    """The config that training saved with the weights, and `opts` on top of it.

    OUTPUT_DIR is that of the training where the weights lie in it, and the default elsewhere: the folder may be of
    another machine, and results would go to a run that has nothing to do with them.

    Args:
        weights: weights file, URL, or a packaged model.
        opts: ``KEY VALUE`` pairs in one list.
        content: of the weights file, where it has been read already.

    Raises:
        FileNotFoundError: no such weights file.
        ValueError: no weights file, or one without a config: all files but those of this engine.
    """
    if content is None and weights:
        content = read_model_file(weights)
    saved = _saved_config(content)
    if saved is None:
        what = f"{weights!r} holds no config" if weights else "there are no weights to take it from"
        raise ValueError(f"name a config file: {what}")
    # Compilation made the training fast; on another machine, and for a few images, it need not pay.
    opts = ["MODEL.COMPILE", False, *opts]
    cfg = load_config(None, opts, text=saved, source=f"the config in {weights!r}")
    if cfg.level_of("OUTPUT_DIR") == Level.OVERRIDE or (weights and _lies_in(weights, cfg.OUTPUT_DIR)):
        return cfg
    return cfg.with_values({"OUTPUT_DIR": get_cfg().OUTPUT_DIR})


def _lies_in(weights: str, folder: str) -> bool:
    """Whether local weights lie in a folder; those of a URL, which is not resolved once more, do not."""
    if "://" in weights:
        return False
    return os.path.realpath(os.path.dirname(local_path(weights))) == os.path.realpath(folder)


def with_classes_of_weights(cfg: CfgNode, content: Mapping | None) -> CfgNode:
    """The config with the number of classes that the weights were trained for, unless it was given by hand.

    Args:
        cfg: the config.
        content: of a weights file; without a config or class names in it the config stays as it is.
    """
    if content is None or cfg.level_of(_NUM_CLASSES) == Level.OVERRIDE:
        return cfg
    count = _num_classes_of(content) or cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if count == cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        return cfg
    logger.info("%s is %d, as the weights have it, not %d", _NUM_CLASSES, count, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    return cfg.with_values({_NUM_CLASSES: count})


def _num_classes_of(content: Mapping) -> int:
    """The number of classes by the config in a weights file, else by its class names; 0 if it has neither."""
    try:
        # Not `load_config`: the config may have keys of a package or version that is not here.
        return int(yaml.safe_load(_saved_config(content) or "")["MODEL"]["ROI_HEADS"]["NUM_CLASSES"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return len(content.get("class_names") or ())


def _saved_config(content: Mapping | None) -> str | None:
    saved = content.get("config") if content else None
    return saved if isinstance(saved, str) else None


def _class_names(cfg: CfgNode, names: Sequence[str]) -> tuple[str, ...]:
    """The names saved with the weights, else those of the first test set whose annotation file is here."""
    for dataset in cfg.DATASETS.TEST:
        if not names and not dataset_files(dataset).missing():
            names = load_dataset(dataset)[1].class_names
    return tuple(names) if len(names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES else ()
