"""Identical image files, by content: for splits that share no image, and to find images that two splits share."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence


def content_groups(paths: Sequence[str]) -> list[list[int]]:
    """Positions of the files grouped by content, in the order of the first of each group.

    Only files of equal size are read. A file that cannot be read is a group of its own.
    """
    by_size: dict[object, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        try:
            by_size[os.path.getsize(path)].append(position)
        except OSError:
            by_size[f"unreadable {position}"].append(position)
    groups: dict[object, list[int]] = defaultdict(list)
    digests: dict[str, object] = {}
    for size, positions in by_size.items():
        for position in positions:
            path = paths[position]
            if len(positions) > 1 and path not in digests:
                digests[path] = _digest(path)
            groups[digests.get(path, size) if len(positions) > 1 else size].append(position)
    return sorted(groups.values())


def _digest(path: str) -> object:
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read()).digest()
    except OSError:
        return f"unreadable {path}"
