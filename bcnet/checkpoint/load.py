"""Loading pretrained weights of any known origin into a model, with a report on every tensor."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bcnet.checkpoint import names
from bcnet.checkpoint.convert import Conversion, to_bcnet
from bcnet.checkpoint.files import class_names_of, read_checkpoint, weights_of
from bcnet.checkpoint.report import LoadReport
from bcnet.checkpoint.urls import local_path
from bcnet.modeling.checkpoint_adapter import CheckpointAdapter, adapter_of

logger = logging.getLogger(__name__)

_COUNTER = ".num_batches_tracked"
_ABSENT = "no such tensor in the model"


def read_model_file(source: str) -> dict:
    """The content of a weights file, which is downloaded if the source is a URL.

    Args:
        source: path or URL, see `bcnet.checkpoint.urls`.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the download failed; says what to download and where to put it.
        ValueError: the file cannot be read.
    """
    path = local_path(source)
    try:
        return read_checkpoint(path)
    except ValueError as error:
        if path == source or "://" not in source:
            raise
        raise ValueError(f"{error}\nIt was downloaded from {source}; delete it to download it again") from error


def load_weights(model: nn.Module, source: str, *, strict: bool = True, content: Mapping | None = None) -> LoadReport:
    """Loads weights of any known code base into a model, in place.

    Supported are weights of bcnet, of detectron2 (its model zoo, the plugin), of the published BCNet
    FCOS code, of torchvision's Mask R-CNN, Faster R-CNN and FCOS with ResNet-50-FPN, and the ImageNet ResNets and
    ResNeXts of Caffe2 (detectron2's zoo) and torchvision.

    A plain mask head initialises the visible mask of a head with layers, where shapes match: in the bilayer head its
    convolutions and its decoder become the occludee's. Pyramid levels are matched by their stride.

    Args:
        model: the model; its tensors keep their device and dtype.
        source: path or URL, see `bcnet.checkpoint.urls`.
        strict: for evaluation: missing or reshaped tensors, and tensors of the file that the model lacks and that
            would change its output, are an error. If False, for training, the model's own tensors keep their initial
            values in these cases.
        content: of the source, if it was read before (`read_model_file`).

    Returns:
        LoadReport: which tensors were loaded, skipped, reshaped or missing. It is logged as one table if anything
        is unexpected, else as one line.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the download failed; says what to download and where to put it.
        ValueError: the file cannot be read, or is of unknown origin; the ResNet is a different one; fewer than half of
            the tensors fit; or, with `strict`, anything differs. The message has the table; the model is unchanged.
    """
    source = os.fspath(source)
    if content is None:
        content = read_model_file(source)
    report, state = fit_weights(model, content, source, strict=strict)
    with torch.no_grad():
        model.load_state_dict(state, strict=False)
    return report


def fit_weights(
    model: nn.Module, content: Mapping, source: str, *, strict: bool
) -> tuple[LoadReport, dict[str, Tensor]]:
    """What `load_weights` would load: its report, which is logged, and the tensors by the model's names.

    Args:
        content: of the weights file.
        source, strict: as `load_weights`.

    Raises:
        ValueError: as `load_weights`.
    """
    state = weights_of(content, source)
    try:
        conversion = _convert(model, state)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    report = match_weights(model, conversion, source=source)
    report.class_names = class_names_of(content, source)
    author = content.get("__author__")
    for adapter in _adapters(model):
        report.warnings.extend(adapter.warnings(model, conversion, author if isinstance(author, str) else ""))
    _refuse_another_model(model, report, strict=strict)

    if report.warnings or (report.differs and not report.is_backbone):
        logger.warning("%s", report.table())
    else:
        logger.info("%s", report.title())
        logger.debug("%s", report.table())
    return report, {key: conversion.state[key] for key in report.loaded}


def _convert(model: nn.Module, state: Mapping[str, Tensor]) -> Conversion:
    own = model.state_dict()
    adapters = _adapters(model)
    try:
        dialect = names.BCNET if state.keys() <= own.keys() else component_dialect(model, state)
        conversion = to_bcnet(state, num_classes=getattr(model, "num_classes", None), own=own, dialect=dialect)
    except names.UnknownNamesError:
        if not any(key in own for key in state):
            raise
        # A part of a detector, or a custom module, by its own names.
        conversion = Conversion(names.BCNET, dict(state), {key: key for key in state})
    for adapter in adapters:
        adapter.adapt(conversion, own)
    for key in list(conversion.state):
        if key.startswith("mask_branch.") and not any(name.startswith("mask_branch.") for name in own):
            conversion.leave_out(key, "the model has no mask branch", harmless=True)
        elif key.endswith(_COUNTER) and key not in own:
            frozen = f"{key.removesuffix(_COUNTER)}.running_mean" in own
            reason = "the model's BatchNorm is frozen and has no counter" if frozen else _ABSENT
            conversion.leave_out(key, reason, harmless=True)
    return conversion


def _adapters(model: nn.Module) -> list[CheckpointAdapter]:
    """The adapters of the model and its registered components."""
    head = getattr(getattr(model, "mask_branch", None), "head", None)
    return [adapter_of(component) for component in (getattr(model, "backbone", None), model, head)]


def component_dialect(model: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """The dialect of a file's names if one of the model's components defines it, such as that of timm's classifiers."""
    own = model.state_dict()
    for adapter in _adapters(model):
        for dialect in adapter.dialects:
            renamer = names.renamer(dialect, state)
            if 2 * sum(renamer.to_ours(key) in own for key in state) > len(state):
                return dialect
    return None


def match_weights(model: nn.Module, conversion: Conversion, *, source: str) -> LoadReport:
    """Compares weights under our names with a model's; loads nothing."""
    own = model.state_dict()
    report = LoadReport(source=source, origin=names.description(conversion.dialect), model=type(model).__name__)
    report.skipped.extend(conversion.left_out)
    for key, tensor in conversion.state.items():
        name, shape = conversion.sources[key], tuple(tensor.shape)
        if key not in own:
            report.skip(name, shape, _ABSENT)
        elif shape != tuple(own[key].shape):
            report.reshaped[key] = (shape, tuple(own[key].shape))
        else:
            report.loaded[key] = name
    present = report.loaded.keys() | report.reshaped.keys()
    # A BatchNorm whose loaded statistics have no counter starts counting at zero.
    report.missing.extend(key for key in own if key not in present and not key.endswith(_COUNTER))
    return report


def _refuse_another_model(model: nn.Module, report: LoadReport, *, strict: bool) -> None:
    own = [key for key in model.state_dict() if not key.endswith(_COUNTER)]
    loaded = [key for key in report.loaded if not key.endswith(_COUNTER)]
    in_file = len(loaded) + len(report.reshaped) + sum(not entry.harmless for entry in report.skipped)
    if not loaded:
        raise ValueError(f"no tensor of {report.source!r} fits the model:\n{report.table()}")
    if 2 * len(loaded) < min(in_file, len(own)):
        logger.debug("%s", report.table())
        raise ValueError(
            f"the weights of {report.source!r} are of another architecture, only {len(loaded)} of {in_file} tensors "
            f"fit the model ({report.examples()})"
        )
    for adapter in _adapters(model):
        if (fault := adapter.fault(report)) is not None:
            raise ValueError(f"{fault}:\n{report.table()}")
    if strict and report.differs:
        raise ValueError(f"the weights of {report.source!r} do not fit the model:\n{report.table()}")
