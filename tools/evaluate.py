#!/usr/bin/env python
"""Evaluates a COCO results file, or a model on data sets; `--help` lists the arguments."""

from bcnet.cli.evaluate import main

if __name__ == "__main__":
    main()
