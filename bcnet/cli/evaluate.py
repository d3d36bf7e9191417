"""``bcnet evaluate``: COCO, boundary and occlusion metrics of a model or of a COCO results file."""

from __future__ import annotations

import argparse
import inspect
import logging
from collections.abc import Sequence

from bcnet.cli.arguments import add_config_arguments, add_model_arguments
from bcnet.cli.errors import one_line_errors

EPILOG = """examples:
  a model on its test set:   %(prog)s --weights model_final.pth
  a model on own data:       %(prog)s --weights model_final.pth --dataset coco:val.json:images
  a results file:            %(prog)s --annotations val.json --results coco_instances_results.json

Of a model, it writes OUTPUT_DIR/inference/<data set>/ with the results file and metrics.json.
"""


# Arguments for results files only, and what to set instead for a model.
_OF_A_FILE = {
    "score_threshold": "",
    "mask_target": "; set INPUT.MASK_TARGET",
    "split_lists": "",
    "class_agnostic": "",
    "output": "; metrics.json is written to OUTPUT_DIR/inference/<data set>/",
}


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Evaluates a model on data sets, or a COCO results file: box, mask and boundary AP, AP and recall under occlusion,
    counts at a score threshold; amodal masks, hidden parts and depth order if the annotations have them; and custom
    registered metrics.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=inspect.getdoc(main),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = parser.add_argument_group("a model")
    add_model_arguments(model)
    model.add_argument(
        "--dataset",
        action="append",
        metavar="NAME",
        help="data set name or spec, e.g. coco:val.json:images; may be repeated (default: DATASETS.TEST of the config)",
    )
    model.add_argument("--num-gpus", type=int, default=1, help="GPUs, one process each")
    both = parser.add_argument_group("both")
    both.add_argument(
        "--max-detections",
        type=int,
        metavar="N",
        help="highest scoring detections per image (model) or per image and class (results file) that count "
        "(default: TEST.DETECTIONS_PER_IMAGE; 100)",
    )
    both.add_argument(
        "--metrics",
        type=lambda names: names.split(","),
        metavar="NAME,NAME",
        help="metrics to compute, e.g. bbox,segm (default: all registered)",
    )
    both.add_argument("--olac", metavar="FILE", help="COCO-OLAC's occlusion levels of the images, for AP by level")
    file = parser.add_argument_group("a results file")
    file.add_argument("--annotations", help="COCO annotation file, or a data set's name or spec")
    file.add_argument("--results", help="COCO results file of any tool, or a json that bcnet predict wrote")
    file.add_argument("--output", help="JSON file to write the metrics to")
    file.add_argument("--score-threshold", type=float, help="for counts and relations (default: 0.5)")
    file.add_argument(
        "--mask-target", choices=("visible", "amodal"), help="target of the model's masks (default: visible)"
    )
    file.add_argument(
        "--class-agnostic",
        action="store_true",
        default=None,
        help="compare without categories, which the results need not have then",
    )
    file.add_argument(
        "--split-lists",
        nargs=2,
        metavar=("OCCLUDED", "SEPARATED"),
        help="the lists of Occluded COCO and Separated COCO, for recall (default: split by the annotations)",
    )
    add_config_arguments(parser)
    args = parser.parse_args(arguments)
    of_file = bool(args.annotations or args.results)
    if of_file == bool(args.config_file or args.weights):
        parser.error("give one or the other: --weights for a model, --annotations and --results for a file")
    if of_file:
        if not (args.annotations and args.results):
            parser.error("--annotations and --results go together")
        if args.dataset or args.opts:
            parser.error(f"a results file has no config: {' '.join(args.opts) or '--dataset'}")
        _evaluate_file(parser, args)
        return
    for name, instead in _OF_A_FILE.items():
        if getattr(args, name) is not None:
            parser.error(f"--{name.replace('_', '-')} is for a results file{instead}")
    _evaluate_model(parser, args, prog)


def _evaluate_model(parser: argparse.ArgumentParser, args: argparse.Namespace, prog: str | None) -> None:
    from bcnet.cli.train import main as run_training_command

    given = {
        "MODEL.WEIGHTS": args.weights,
        "DATASETS.TEST": args.dataset and tuple(args.dataset),
        "TEST.DETECTIONS_PER_IMAGE": args.max_detections,
        "TEST.METRICS": args.metrics and tuple(args.metrics),
        "TEST.OLAC_LABELS": args.olac,
    }
    opts = [part for key, value in given.items() if value is not None for part in (key, str(value))]
    command = ["--eval-only", "--num-gpus", str(args.num_gpus)]
    command += ["--config-file", args.config_file] if args.config_file else []
    with one_line_errors(parser):
        imports = [word for name in args.imports for word in ("--import", name)]
        run_training_command([*command, *imports, *args.opts, *opts], prog=prog)


def _evaluate_file(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from bcnet.evaluation import evaluate_files, format_report
    from bcnet.files import write_json

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    lists: dict[str, str] | None = None
    if args.split_lists:
        lists = dict(zip(("occluded", "separated"), args.split_lists, strict=True))
    given = {
        "score_threshold": args.score_threshold,
        "max_detections": args.max_detections,
        "mask_target": args.mask_target,
        "olac_labels": args.olac,
        "metrics": args.metrics,
        "class_agnostic": args.class_agnostic,
    }
    with one_line_errors(parser):
        metrics = evaluate_files(
            args.annotations,
            args.results,
            split_lists=lists,
            **{name: value for name, value in given.items() if value is not None},
        )
        print(format_report(metrics))
        if args.output:
            write_json(args.output, metrics)
            print(f"\nWrote {args.output}")
