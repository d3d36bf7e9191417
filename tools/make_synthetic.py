#!/usr/bin/env python
"""`bcnet data scenes`; `--help` lists the arguments."""

import sys

from bcnet.cli import main

if __name__ == "__main__":
    main(["data", "scenes", *sys.argv[1:]])
