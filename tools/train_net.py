#!/usr/bin/env python
"""Trains or evaluates a model; `--help` lists the arguments."""

from bcnet.engine.command_line import main

if __name__ == "__main__":
    main()
