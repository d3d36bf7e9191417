"""``bcnet data``: commands that create, convert and draw annotations."""
