#!/usr/bin/env python
"""`bcnet train` under the file name that detectron2's users know; `--help` lists the arguments."""

import sys

from bcnet.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
