#!/usr/bin/env python
"""`bcnet draw`; `--help` lists the arguments."""

import sys

from bcnet.cli import main

if __name__ == "__main__":
    main(["draw", *sys.argv[1:]])
