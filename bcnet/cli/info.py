"""``bcnet info``: versions and devices of the installation, and descriptions of config and weights files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Prints versions and devices of the installation, or describes config and weights files, as YAML."""
    parser = argparse.ArgumentParser(prog=prog, description=main.__doc__)
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="config (.yaml, or the name of one that comes with bcnet) or weights"
    )
    args = parser.parse_args(arguments)
    import yaml

    described = _describe_files(args.files) if args.files else _describe_installation()
    print(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120).rstrip())


def _describe_files(names: Sequence[str]) -> dict:
    from bcnet.cli.describe import describe

    return {name: describe(name) for name in names}


def _describe_installation() -> dict:
    from bcnet.config import packaged_configs
    from bcnet.installation import describe_installation

    configs = [name for name in packaged_configs() if not os.path.basename(name).startswith("Base")]
    return describe_installation() | {"configs": configs}
