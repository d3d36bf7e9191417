"""``bcnet data``: commands that prepare and show annotation files."""
