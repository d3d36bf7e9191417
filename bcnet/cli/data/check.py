"""``bcnet data check``: counts, occlusion, suspicious entries, images that splits share, and a config to start with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bcnet.cli.arguments import add_import_argument

EXAMPLES = """examples:
  one data set:        %(prog)s coco:annotations.json:images --output report.html
  training and test:   %(prog)s coco:train.json:images coco:val.json:images --output report.html
  any format:          %(prog)s labelme:folder

The status is 1 if training would reject a data set, or if two of them share images.
"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Checks data sets before training: one page in the terminal, and a report with thumbnails."""
    parser = argparse.ArgumentParser(
        prog=prog, description=main.__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", metavar="DATA", help="name or spec; the training set first")
    parser.add_argument("--output", metavar="FILE", help="HTML file of the report")
    add_import_argument(parser)
    args = parser.parse_args(arguments)
    from bcnet.data.inspection.dataset_check import check_datasets

    check = check_datasets(args.datasets)
    print(check.text())
    if args.output:
        from bcnet.visualization.dataset_report import write_dataset_report

        write_dataset_report(check, args.output)
        print(f"report: {args.output}")
    if not check.is_fine:
        parser.exit(1)
