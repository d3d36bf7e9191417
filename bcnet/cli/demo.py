"""``bcnet demo``: web page that shows what a model finds in an image: layers, hidden parts, heat maps, depth order."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments, add_model_arguments, default_to_packaged, parse_with_keys

DEFAULT_WEIGHTS = "output/quick/model_final.pth"  # of all.sh
EPILOG = """examples:
  %(prog)s                                         the model that all.sh trained
  %(prog)s --weights hf://owner/name --examples photos/*.jpg

The page needs no network, and only this computer reaches it: --host 0.0.0.0 lets others in, who may then upload files
to it. Ctrl-C ends it.
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Serves a web page on which to try a model: upload an image, move the thresholds, click an object."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, help="(default: the first free one from 7860 on)")
    parser.add_argument(
        "--max-size", type=float, default=20, metavar="MIB", help="of an uploaded file (default: %(default)s MiB)"
    )
    parser.add_argument(
        "--examples",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="images, folders or patterns to offer (default: rendered scenes)",
    )
    parser.add_argument("--browser", action="store_true", help="open the page in the browser")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is loaded and predicted")
    add_config_arguments(parser)
    args = parse_with_keys(parser, arguments, "examples")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if args.verbose:
        logging.getLogger("bcnet").setLevel(logging.INFO)
    if args.max_size <= 0:
        parser.error(f"--max-size must be above 0, got {args.max_size:g}")
    if args.weights is None and args.config_file is None and os.path.isfile(DEFAULT_WEIGHTS):
        args.weights = DEFAULT_WEIGHTS
    default_to_packaged(args, "lite-detector")
    from bcnet.data import find_images
    from bcnet.demo.analysis import MEBIBYTE, check_model, example_images, read_examples
    from bcnet.demo.page import serve
    from bcnet.prediction.loading import load

    model = load(args.config_file, args.weights, args.opts)
    check_model(model)
    if args.examples:
        files = find_images(args.examples)
        examples = read_examples(files, max_pixels=model.max_image_pixels)
    else:
        examples = [(image, f"scene {number}") for number, image in enumerate(example_images(), start=1)]
    server = serve(
        model,
        examples=examples,
        host=args.host,
        port=args.port,
        max_bytes=round(args.max_size * MEBIBYTE),
        browser=args.browser,
    )
    print(f"the demo of {args.weights or args.config_file} is at {server.url} until Ctrl-C", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # docker stop
    try:
        server.wait()
    except KeyboardInterrupt:
        print("\nthe demo has ended")
    finally:
        server.close()
