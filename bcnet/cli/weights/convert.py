"""``bcnet weights convert``: converts weights of known code bases to the tensor names of bcnet or detectron2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Converts weights of detectron2, published BCNet, torchvision or bcnet to the names of bcnet or detectron2."""
    parser = argparse.ArgumentParser(prog=prog, description=main.__doc__)
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help="file, 'lite', or URL: https://..., detectron2://... or torchvision://...",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help=".pth or .safetensors file to write")
    parser.add_argument("--to", choices=("bcnet", "detectron2"), default="bcnet", help="names (default: %(default)s)")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="fp16 halves the file (default: %(default)s)"
    )
    args = parser.parse_args(arguments)
    from bcnet.checkpoint import conversion_table, convert_checkpoint

    conversion = convert_checkpoint(args.input, args.output, args.to, precision=args.precision)
    print(conversion_table(conversion, args.input, args.output))
