"""``bcnet weights``: commands for weights files."""
