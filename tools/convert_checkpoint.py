#!/usr/bin/env python
"""`bcnet weights convert`; `--help` lists the arguments."""

import sys

from bcnet.cli import main

if __name__ == "__main__":
    main(["weights", "convert", *sys.argv[1:]])
