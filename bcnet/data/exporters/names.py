"""Names of written files: after the images, no two alike."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bcnet.data.records import ImageRecord


def image_names(records: Sequence[ImageRecord], image_root: str) -> list[str]:
    """The file names of the images from the image root, with slashes; of an image elsewhere the path as it is."""
    names = []
    for record in records:
        name = os.path.relpath(record.file_name, image_root or ".") if not _is_elsewhere(record.file_name) else None
        name = record.file_name if name is None or name.startswith("..") else name
        names.append(name.replace(os.sep, "/"))
    return names


def _is_elsewhere(file_name: str) -> bool:
    return "://" in file_name


def output_stems(records: Sequence[ImageRecord], image_root: str) -> list[str]:
    """Names without suffix for what is written of each image: with the image's subfolders, no two alike.

    Images of one name get a number: ``a``, ``a_2``. File systems that do not tell cases apart are thought of.
    """
    stems: list[str] = []
    taken: set[str] = set()
    for name in image_names(records, image_root):
        inside = not (os.path.isabs(name) or name.startswith("..") or "://" in name)
        stem = base = os.path.splitext(name if inside else os.path.basename(name))[0]
        number = 2
        while stem.casefold() in taken:
            stem, number = f"{base}_{number}", number + 1
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
