#!/usr/bin/env python
"""Trains or evaluates a model; `--help` lists the arguments."""

from bcnet.cli.train import main

if __name__ == "__main__":
    main()
