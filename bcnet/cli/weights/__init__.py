"""``bcnet weights``: commands that work on weights files."""
