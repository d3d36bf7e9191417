#!/usr/bin/env python
"""`bcnet data occ-split`; `--help` lists the arguments."""

import sys

from bcnet.cli import main

if __name__ == "__main__":
    main(["data", "occ-split", *sys.argv[1:]])
