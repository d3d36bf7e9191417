"""Model files: atomic writing, reading that never executes code, loading with a readable report."""

from bcnet.checkpoint.files import read_checkpoint, write_checkpoint
from bcnet.checkpoint.weights import KeyDifferences, load_weights

__all__ = ["KeyDifferences", "load_weights", "read_checkpoint", "write_checkpoint"]
