#!/usr/bin/env python
"""Adds the occluder mask of every annotation (bg_object_segmentation) to a COCO json; `--help` lists the arguments."""

from bcnet.cli.annotate import main

if __name__ == "__main__":
    main()
