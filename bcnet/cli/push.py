"""``bcnet push``: uploads a trained model to the Hugging Face Hub, or saves it as a folder that others can load."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments, add_model_arguments

EPILOG = """examples:
  %(prog)s --weights output/quick/model_final.pth --repo me/stacked-shapes --license mit
  %(prog)s --weights output/quick/model_final.pth --folder stacked-shapes --precision fp16

Both write model.safetensors, config.json and a model card with the commands and results of the training, which has
them in the folder of its weights. Log in with 'hf auth login' first, or set HF_TOKEN. What was uploaded loads by
its name: bcnet.load("hf://me/stacked-shapes"), --weights hf://me/stacked-shapes.
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Uploads a model to the Hugging Face Hub: safetensors weights, config, class names and a model card."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--repo", metavar="OWNER/NAME", help="repository on the Hub; made if it does not exist")
    target.add_argument("--folder", metavar="FOLDER", help="write into a folder and upload nothing")
    parser.add_argument(
        "--run", metavar="FOLDER", help="OUTPUT_DIR of the training (default: the folder of the weights)"
    )
    parser.add_argument("--license", metavar="NAME", help="licence of the weights, such as mit or cc-by-4.0")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="fp16 halves the file (default: %(default)s)"
    )
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--message", default="Model of bcnet", help="of the commit (default: %(default)s)")
    parser.add_argument("--replace-card", action="store_true", help="write the card over an existing one")
    add_config_arguments(parser)
    args = parser.parse_args(arguments)
    from bcnet.checkpoint.hub import check_repo_id
    from bcnet.prediction.loading import load_predictor
    from bcnet.prediction.model_card import run_folder_of

    if args.repo:
        check_repo_id(args.repo)
    model = load_predictor(args.config_file, args.weights, args.opts, device="cpu")
    card = {"run": args.run or run_folder_of(args.weights), "license": args.license, "replace_card": args.replace_card}
    if args.folder:
        model.save_pretrained(args.folder, precision=args.precision, **card)
        print(f"saved to {args.folder}{os.sep}")
    else:
        url = model.push_to_hub(args.repo, private=args.private, message=args.message, precision=args.precision, **card)
        print(f"uploaded to {url}; it loads as hf://{check_repo_id(args.repo)}")
