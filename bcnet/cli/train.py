"""``bcnet train``: what `tools/train_net.py` is."""

from bcnet.engine.command_line import main

__all__ = ["main"]
