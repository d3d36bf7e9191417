"""Writes a model as ONNX, OpenVINO or a torch.export program, with its metadata inside.

All three are made of one program of `torch.export`; OpenVINO's is converted from the ONNX.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import torch

import bcnet
from bcnet.export.info import KEY, ExportInfo
from bcnet.export.network import ExportNetwork
from bcnet.exported_files import ONNX, OPENVINO, SUFFIXES, TORCH
from bcnet.files import atomic_write
from bcnet.modeling import Detector
from bcnet.modeling.modes import evaluating
from bcnet.prediction.predictor import Predictor

OPSET = 18  # of ONNX's standard operators; TensorRT and OpenVINO take it
MAX_SIDE = 8192  # of a dynamic input, pixels


def export_model(
    predictor: Predictor,
    format: str,
    output: str | os.PathLike,
    *,
    size: int | None = None,
    dynamic: bool = False,
    maps: str = "all",
    fixed_detections: bool = False,
) -> ExportInfo:
    """Writes a model with normalisation, NMS and mask head as one file; see `ExportNetwork` for inputs and outputs.

    Args:
        predictor: as `bcnet.load` gives it, on the CPU.
        format: "onnx", "openvino" (a .xml with a .bin beside it) or "torch" (a .pt2 of `torch.export`).
        output: the file; its suffix must be the format's.
        size: side of the square input in pixels, a multiple of the model's `size_divisibility`; None takes
            INPUT.MAX_SIZE_TEST, rounded up to one.
        dynamic: any image size, in place of `size`.
        maps: "all" maps of the head, or "masks" alone, which is faster and without occlusion relations.
        fixed_detections: a fixed number of detections, padded, in place of as many as there are.

    Raises:
        ValueError: an option that makes no sense, or a model that cannot be exported; says why.
        ImportError: a package of the extra "export" is missing.
        OSError: the file cannot be written.
    """
    output = os.fspath(output)
    if format not in SUFFIXES:
        raise ValueError(f"format is {format!r}; it must be one of {', '.join(map(repr, SUFFIXES))}")
    if os.path.splitext(output)[1].lower() != SUFFIXES[format]:
        raise ValueError(f"a file of format {format} ends with {SUFFIXES[format]}, got {output!r}")
    if maps not in ("all", "masks"):
        raise ValueError(f"maps is {maps!r}; it must be 'all' or 'masks'")
    _require_packages(format)
    model = _exportable(predictor)
    network = ExportNetwork(model, image_format=predictor.image_format, all_maps=maps == "all", fixed=fixed_detections)
    info = _info(predictor, network, None if dynamic else _side(predictor, model, size), size)
    with evaluating(network), _frozen(model):
        program = _program(network, info)
        if format == TORCH:
            _write_torch(program, info, output)
        elif format == ONNX:
            _write_onnx(_onnx(program, network, info), output)
        else:
            with tempfile.TemporaryDirectory(prefix="bcnet-export-") as folder:
                path = os.path.join(folder, "model.onnx")
                _write_onnx(_onnx(program, network, info), path)
                copy_as_openvino(path, output)
    return info


def _require_packages(format: str) -> None:
    needed = {ONNX: ("onnx", "onnxscript"), OPENVINO: ("onnx", "onnxscript", "openvino"), TORCH: ()}[format]
    for name in needed:
        try:
            __import__(name)
        except ImportError as error:
            message = f"export to {format} needs the package {name}: pip install 'bcnet[export]'"
            raise ImportError(message, name=name) from error


def _exportable(predictor: Predictor) -> Detector:
    model = predictor.model
    if not isinstance(model, Detector):
        raise ValueError(f"a {type(model).__name__} cannot be exported, only a detector: set TEST.AUG.ENABLED False")
    if model.device.type != "cpu":
        raise ValueError(f"the model is on {model.device}; load it with MODEL.DEVICE cpu to export it")
    return model


def _side(predictor: Predictor, model: Detector, size: int | None) -> int:
    divisor = model.size_divisibility
    if size is None:
        return -(-predictor.augmentation.resize.max_size // divisor) * divisor
    if size < 1 or size % divisor:
        raise ValueError(f"size must be a multiple of {divisor}, which the backbone needs, got {size}")
    return size


def _info(predictor: Predictor, network: ExportNetwork, side: int | None, size: int | None) -> ExportInfo:
    if side is None and size is not None:
        raise ValueError(f"give a size ({size}) or dynamic, not both")
    model, resize = network.model, predictor.augmentation.resize
    return ExportInfo(
        version=bcnet.__version__,
        detector=type(model).__name__,
        num_classes=predictor.num_classes,
        class_names=predictor.class_names,
        takes_boxes=not model.detects,
        takes_classes=network.takes_classes,
        size=side,
        short_side=int(resize.short_sides[0]),
        long_side=int(resize.max_size),
        divisor=model.size_divisibility,
        fixed=network.fixed,
        max_detections=network.fixed_detections,
        roi_scale=1.0 if model.mask_branch is None else model.mask_branch.roi_scale,
        max_image_pixels=predictor.max_image_pixels,
        maps=network.specs,
    )


@contextlib.contextmanager
def _frozen(model: Detector) -> Iterator[None]:
    """Parameters without gradient within the context: the program has no autograd of its own."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporters, about themselves
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _program(network: ExportNetwork, info: ExportInfo) -> torch.export.ExportedProgram:
    # The sides of the example differ, and are not once the divisor: torch.export would take these for constants.
    height, width = (info.size, info.size) if info.size else (5 * info.divisor, 4 * info.divisor)
    inputs: list[torch.Tensor] = [torch.zeros(1, 3, height, width), torch.tensor([height - 3, width - 5])]
    shapes: list[Any] = [{}, {}]
    if info.size is None:
        most = MAX_SIDE // info.divisor
        sides = {axis: info.divisor * torch.export.Dim(name, min=1, max=most) for axis, name in ((2, "h"), (3, "w"))}
        shapes[0] = sides
    if info.takes_boxes:
        count = info.max_detections if info.fixed else 3
        boxes = torch.tensor([[1.0, 1.0, width / 2, height / 2]]).repeat(count, 1)
        dimension = {} if info.fixed else {0: torch.export.Dim("detections", min=0, max=4096)}
        inputs.append(boxes)
        shapes.append(dimension)
        if info.takes_classes:
            inputs.append(torch.zeros(count, dtype=torch.int64))
            shapes.append(dimension)
    dynamic_shapes = dict(zip(info.input_names, shapes, strict=True))
    try:
        with _quiet():  # where it fails, torch prints the whole graph
            return torch.export.export(network, tuple(inputs), dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        hint = "; a fixed size (--size) may work" if info.size is None else ""
        raise ValueError(f"torch.export cannot export this {info.detector}: {reason}{hint}") from error


def _write_torch(program: torch.export.ExportedProgram, info: ExportInfo, output: str) -> None:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{KEY}.json": info.to_json()})
    with atomic_write(output, "wb") as file:
        file.write(buffer.getbuffer())


def _onnx(program: torch.export.ExportedProgram, network: ExportNetwork, info: ExportInfo) -> Any:
    """The program as an onnx.ModelProto with metadata."""
    try:
        with _quiet():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(info.input_names),
                output_names=list(info.output_names),
                verbose=False,
            )
        assert converted is not None
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"this {info.detector} cannot be converted to ONNX: {reason}") from error
    model = converted.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, info.to_json()
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's progress and its warnings of operators that it replaces."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write_onnx(model: Any, output: str) -> None:
    content = model.SerializeToString()
    with atomic_write(output, "wb") as file:
        file.write(content)


def copy_as_openvino(source: str | os.PathLike, output: str | os.PathLike) -> None:
    """Converts an ONNX file of `export_model` to OpenVINO's .xml, with a .bin beside it, in float32.

    Raises:
        ImportError: openvino is not installed.
        ValueError: the ONNX file was not exported by bcnet.
        OSError: a file cannot be read or written.
    """
    import onnx
    import openvino

    output = os.path.abspath(os.fspath(output))
    metadata = {entry.key: entry.value for entry in onnx.load(source, load_external_data=False).metadata_props}
    info = ExportInfo.from_json(metadata.get(KEY), os.fspath(source))
    model = openvino.convert_model(source)
    model.set_rt_info(info.to_json(), KEY)
    os.makedirs(os.path.dirname(output), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(output), prefix=".openvino-") as folder:
        openvino.save_model(model, os.path.join(folder, "model.xml"), compress_to_fp16=False)
        # The weights first: a .xml never lacks them.
        os.replace(os.path.join(folder, "model.bin"), f"{os.path.splitext(output)[0]}.bin")
        os.replace(os.path.join(folder, "model.xml"), output)
