#!/usr/bin/env python
"""Converts weights of detectron2, the published BCNet code, torchvision or bcnet to bcnet's or detectron2's names."""

from __future__ import annotations

import argparse

from bcnet.checkpoint import conversion_table, convert_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input", required=True, help="file, or address: https://..., detectron2://... or torchvision://..."
    )
    parser.add_argument("--output", required=True, help=".pth or .safetensors file to write")
    parser.add_argument("--to", choices=("bcnet", "detectron2"), default="bcnet", help="names (default: %(default)s)")
    args = parser.parse_args()
    try:
        conversion = convert_checkpoint(args.input, args.output, args.to)
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(conversion_table(conversion, args.input, args.output))


if __name__ == "__main__":
    main()
