#!/usr/bin/env python
"""`bcnet evaluate`; `--help` lists the arguments."""

import sys

from bcnet.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
