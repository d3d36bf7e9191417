#!/usr/bin/env python
"""`bcnet data draw`; `--help` lists the arguments."""

import sys

from bcnet.cli import main

if __name__ == "__main__":
    main(["data", "draw", *sys.argv[1:]])
