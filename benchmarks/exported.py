"""Latency and AP of a model: eager, compiled, and exported to ONNX Runtime and OpenVINO, in fp32, bf16 and int8.

python -m benchmarks.exported --weights model_final.pth --size 192 --images val/ --annotations val.json \\
    --calibration train/ --threads 1 --json exported.json

All variants predict the same square images, in turns, from pixels to both layers; the ratios are those of the medians
to eager. With annotations, whose images they then are, each gets its AP. bf16 and int8 are what bcnet itself does not
offer: OpenVINO's INFERENCE_PRECISION_HINT, and the static quantisation of ONNX Runtime of all convolutions.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata

import numpy as np
import torch
from PIL import Image

from bcnet.data import find_images
from bcnet.data.augmentation import ResizeShortestEdge
from bcnet.data.image_source import rgb_image
from bcnet.evaluation import evaluate_files
from bcnet.evaluation.report import markdown_table
from bcnet.export.formats import copy_as_openvino, export_model
from bcnet.export.runtime import ExportedPredictor
from bcnet.export.sessions import _OpenVINOSession, open_session
from bcnet.files import write_json
from bcnet.modeling.detector import require_detector
from bcnet.prediction.files import predict_files
from bcnet.prediction.loading import load_predictor
from bcnet.prediction.predictor import Predictor
from benchmarks.report import format_amount
from benchmarks.settings import BenchmarkSettings
from benchmarks.suite import describe_environment
from benchmarks.timing import interleaved

EAGER, COMPILED, ONNX, INT8 = "eager", "compiled", "ONNX Runtime", "ONNX Runtime, int8"
OPENVINO, BF16 = "OpenVINO", "OpenVINO, bf16"
VARIANTS = (EAGER, COMPILED, ONNX, INT8, OPENVINO, BF16)
PACKAGES = ("onnx", "onnxruntime", "openvino")
LOWEST_SCORE = 0.05  # of the detections that AP is computed from
Model = Predictor | ExportedPredictor


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="weights with their config")
    parser.add_argument("--size", type=int, required=True, help="side of the images in pixels")
    parser.add_argument("--images", nargs="+", required=True, help="the first of them is timed; all are evaluated")
    parser.add_argument("--annotations", help="COCO json of the images, for AP")
    parser.add_argument("--calibration", nargs="+", help="images for int8 (default: without int8)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9, help="(default: %(default)s)")
    parser.add_argument("--cpu-time", action="store_true", help="the process' CPU time, for a busy machine")
    parser.add_argument("--json", help="output file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    settings = BenchmarkSettings(repeats=args.repeats, cpu_time=args.cpu_time)
    wanted = [name for name in args.variants if name != INT8 or args.calibration]
    with tempfile.TemporaryDirectory() as folder:
        models = dict(open_variants(args, wanted, folder))
        image = square(find_images(args.images)[0], args.size)
        detect = {name: detection(model, image) for name, model in models.items()}
        counts = {name: len(call()) for name, call in detect.items()}
        seconds = interleaved(detect, settings.repeats, clock=settings.clock)
        ap = {}
        if args.annotations:
            ap = {name: average_precision(models[name], args, folder) for name in models}
    rows = table(seconds, counts, ap)
    print(markdown_table(rows))
    if args.json:
        versions = {name: metadata.version(name) for name in PACKAGES}
        environment = describe_environment(settings) | {"threads": args.threads, "versions of runtimes": versions}
        write_json(
            args.json,
            {"arguments": vars(args), "seconds": seconds, "detections": counts, "AP": ap, "environment": environment},
            indent=1,
        )


def open_variants(args: argparse.Namespace, wanted: Sequence[str], folder: str) -> Iterator[tuple[str, Model]]:
    """The variants by name; files are written to the folder."""
    predictor = load_predictor(None, args.weights, device="cpu")
    predictor.augmentation = replace(predictor.augmentation, resize=ResizeShortestEdge((args.size,), args.size))
    paths = [os.path.join(folder, name) for name in ("model.onnx", "model.xml", "int8.onnx")]
    if set(wanted) - {EAGER, COMPILED}:
        export_model(predictor, "onnx", paths[0], size=args.size)
    if {OPENVINO, BF16} & set(wanted):
        copy_as_openvino(paths[0], paths[1])
    if INT8 in wanted:
        images = [square(file, args.size) for file in find_images(args.calibration)]
        quantise(paths[0], paths[2], [ExportedPredictor.load(paths[0])._inputs(image)[0] for image in images])
    sessions: dict[str, Callable] = {
        ONNX: lambda: open_session(paths[0], threads=args.threads),
        INT8: lambda: open_session(paths[2], threads=args.threads),
        OPENVINO: lambda: open_session(paths[1], threads=args.threads),
        BF16: lambda: _OpenVINOSession(paths[1], args.threads, precision="bf16"),
    }
    for name in wanted:
        if name == EAGER:
            yield name, predictor
        elif name == COMPILED:
            compiled = copy.deepcopy(predictor)
            require_detector(compiled.detector).compile()
            yield name, compiled
        else:
            yield name, ExportedPredictor(sessions[name]())


def quantise(source: str, output: str, inputs: Sequence[dict[str, np.ndarray]]) -> None:
    """Writes an ONNX file with its convolutions in int8, whose ranges are those of the given inputs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        rest = iter(inputs)

        def get_next(self):
            return next(self.rest, None)

    quantize_static(
        source,
        output,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def square(file: str, side: int) -> np.ndarray:
    """An image of side x side pixels, uint8 RGB, whatever its proportions were."""
    return np.asarray(Image.fromarray(rgb_image(file)).resize((side, side)))


def detection(model: Model, image: np.ndarray) -> Callable[[], Sequence]:
    return lambda: model.predict(image, "RGB", with_occluder=True)


def average_precision(model: Model, args: argparse.Namespace, folder: str) -> dict[str, float]:
    """Box and mask AP, in percent, of the images at their own size."""
    path = os.path.join(folder, "found.json")
    predict_files(model, find_images(args.images), path, score_threshold=LOWEST_SCORE, batch_size=1, progress=False)
    metrics = evaluate_files(args.annotations, path, metrics=("bbox", "segm"))
    return {kind: round(float(metrics[kind]["AP"]), 2) for kind in ("bbox", "segm")}


def table(seconds: dict[str, list[float]], counts: dict[str, int], ap: dict[str, dict[str, float]]) -> list[list[str]]:
    """Rows of text: time, ratio to the first variant, detections in the timed image, and AP."""
    reference = statistics.median(next(iter(seconds.values())))
    rows = [["", "per image: median (range)", "of eager's time", "detections", "box AP", "mask AP"]]
    for name, values in seconds.items():
        precision = [f"{ap[name][kind]:.1f}" if name in ap else "-" for kind in ("bbox", "segm")]
        ratio = f"{statistics.median(values) / reference:.2f}"
        rows.append([name, format_amount(values), ratio, str(counts[name]), *precision])
    return rows


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    main()
