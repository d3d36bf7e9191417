"""Sessions: run exported files, ONNX by onnxruntime, OpenVINO by openvino, torch.export by torch; arrays in and out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from bcnet.export.info import KEY, ExportInfo
from bcnet.exported_files import ONNX, OPENVINO, SUFFIXES, TORCH, format_of


class Session(Protocol):
    """A model that runs.

    Attributes:
        info: metadata of the file.
    """

    info: ExportInfo

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, for inputs by name."""
        ...


def open_session(path: str | os.PathLike, *, threads: int | None = None, precision: str = "fp32") -> Session:
    """Loads an exported model.

    Args:
        path: .onnx, .xml (with its .bin beside it) or .pt2.
        threads: of ONNX Runtime and OpenVINO; None takes theirs.
        precision: "fp32" alone. OpenVINO's bf16 takes boxes and NMS too, whose pixels it cannot tell apart.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the package that runs the format is not installed.
        ValueError: another suffix or precision; a file that cannot be read, or that bcnet did not export.
    """
    name = os.fspath(path)
    kind = format_of(name)
    if precision != "fp32":
        raise ValueError(f"{name!r} is an exported model, which runs in fp32; not in {precision}")
    if kind is None:
        raise ValueError(f"an exported model is a file {', '.join(SUFFIXES.values())}, got {name!r}")
    if not os.path.isfile(name):
        raise FileNotFoundError(f"there is no exported model {name!r}")
    opened: dict[str, Callable[[], Session]] = {
        ONNX: lambda: _OnnxSession(name, threads),
        OPENVINO: lambda: _OpenVINOSession(name, threads),
        TORCH: lambda: _TorchSession(name),
    }
    try:
        return opened[kind]()
    except ImportError as error:
        package = {ONNX: "onnxruntime", OPENVINO: "openvino", TORCH: "torch"}[kind]
        if error.name and error.name.split(".")[0] in (package, "torchvision"):
            message = f"{name!r} needs the package {error.name}: pip install {error.name}"
            raise ImportError(message, name=error.name) from error
        raise
    except ValueError:
        raise
    except Exception as error:  # of the library's own kinds
        raise ValueError(f"{name!r} cannot be read as {kind}: {error}") from error


class _OnnxSession:
    def __init__(self, path: str, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # shapes that are inferred differently are no concern of the user
        if threads is not None:
            options.intra_op_num_threads = threads
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        available = onnxruntime.get_available_providers()
        providers = [provider for provider in wanted if provider in available]
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        self.info = ExportInfo.from_json(self.session.get_modelmeta().custom_metadata_map.get(KEY), path)
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self.session.run(self.names, dict(inputs))
        return {name: np.asarray(values) for name, values in zip(self.names, outputs, strict=True)}


class _OpenVINOSession:
    def __init__(self, path: str, threads: int | None, precision: str = "f32") -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
        self.info = ExportInfo.from_json(text, path)
        # Said, because on CPUs with bfloat16 units OpenVINO rounds by itself.
        settings: dict = {"INFERENCE_PRECISION_HINT": precision}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self.compiled = core.compile_model(model, "CPU", settings)
        self.names = [output.get_any_name() for output in model.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = self.compiled(dict(inputs))
        return {name: np.array(results[name]) for name in self.names}


class _TorchSession:
    def __init__(self, path: str) -> None:
        import torch
        import torchvision  # noqa: F401 (registers the operators NMS and RoIAlign)

        extra = {f"{KEY}.json": ""}
        program = torch.export.load(path, extra_files=extra)
        self.info = ExportInfo.from_json(extra[f"{KEY}.json"], path)
        self.module = program.module()
        self.names = self.info.output_names

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        with torch.no_grad():
            outputs = self.module(*(torch.from_numpy(value) for value in inputs.values()))
        return {name: value.numpy() for name, value in zip(self.names, outputs, strict=True)}
