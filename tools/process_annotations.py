#!/usr/bin/env python
"""`bcnet data annotate` under the file name that BCNet's users know; `--help` lists the arguments."""

import sys

from bcnet.cli import main

if __name__ == "__main__":
    main(["data", "annotate", *sys.argv[1:]])
