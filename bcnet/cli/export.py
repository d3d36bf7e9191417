"""``bcnet export``: writes a model as ONNX, OpenVINO or a torch.export program, and compares it with eager."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments, add_model_arguments, parse_with_keys
from bcnet.words import counted

EPILOG = """examples:
  %(prog)s --weights output/quick/model_final.pth --format onnx --output quick.onnx --size 320 --check photos/
  bcnet predict --weights quick.onnx --input photos/ --output found.json
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Writes a model with normalisation, NMS and mask head as one file, which bcnet predict and other programs run."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--format", choices=("onnx", "torch", "openvino"), default="onnx", help="of the file (default: %(default)s)"
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="file to write: .onnx, .pt2 (torch) or .xml (openvino)"
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="input of N x N pixels, which images are resized and padded to (default: INPUT.MAX_SIZE_TEST)",
    )
    sizes.add_argument("--dynamic", action="store_true", help="input of any size, resized as the config says")
    parser.add_argument(
        "--maps",
        choices=("all", "masks"),
        default="all",
        help="maps in the file: all, or masks alone, which is faster and has no order (default: %(default)s)",
    )
    parser.add_argument(
        "--fixed-detections",
        action="store_true",
        help="a fixed number of detections, padded with zeros (default: as many as there are)",
    )
    parser.add_argument(
        "--check",
        nargs="+",
        metavar="IMAGE",
        help="compare the file with the model on images: files, folders, patterns, data set names or specs",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is loaded and done")
    add_config_arguments(parser)
    args = parse_with_keys(parser, arguments, "check")
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    from bcnet.data import find_images
    from bcnet.export.check import check_export
    from bcnet.export.formats import export_model
    from bcnet.export.runtime import ExportedPredictor
    from bcnet.prediction.loading import load_predictor

    files = None if args.check is None else find_images(args.check)
    model = load_predictor(args.config_file, args.weights, args.opts, device="cpu")
    info = export_model(
        model,
        args.format,
        args.output,
        size=args.size,
        dynamic=args.dynamic,
        maps=args.maps,
        fixed_detections=args.fixed_detections,
    )
    size = f"{info.size} x {info.size}" if info.size else "any size"
    print(f"{info.detector} of {counted(info.num_classes, 'class', 'classes')}, input {size}, in {args.output}")
    if files is not None:
        print(check_export(ExportedPredictor.load(args.output), model, files))
