"""``bcnet info``: versions and devices of the installation, and descriptions of config and weights files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Prints versions and devices of the installation, or describes config and weights files, as YAML."""
    parser = argparse.ArgumentParser(prog=prog, description=main.__doc__)
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="config (.yaml, or the name of one that comes with bcnet) or weights"
    )
    args = parser.parse_args(arguments)
    import yaml

    from bcnet.cli.describe import describe, describe_installation

    described = {name: describe(name) for name in args.files} if args.files else describe_installation()
    print(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120).rstrip())
