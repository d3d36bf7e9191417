"""Output of a conversion: refuses to overwrite unasked, and removes the files of an earlier conversion, no others.

A conversion to a folder leaves a list of what it wrote there, the hidden file `.bcnet-files`: by it a later one with
``--overwrite`` knows which files are its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from bcnet.files import write_text

LIST = ".bcnet-files"


def check_output(paths: Sequence[str], overwrite: bool) -> None:
    """Checks that files or folders can be written.

    Raises:
        FileExistsError: one exists, and `overwrite` is not set; or it is a folder with files that no conversion wrote.
    """
    for path in paths:
        if os.path.isfile(path) and not overwrite:
            raise FileExistsError(f"the output {path} exists; pass --overwrite to replace it")
        if not (os.path.isdir(path) and os.listdir(path)):
            continue
        if not os.path.isfile(os.path.join(path, LIST)):
            raise FileExistsError(
                f"the output folder {path} is not empty, and no conversion wrote its files; name a new folder"
            )
        if not overwrite:
            raise FileExistsError(
                f"the output folder {path} exists; pass --overwrite to replace the files that a conversion wrote there"
            )


@contextlib.contextmanager
def replaced_folder(folder: str, used: Sequence[str]) -> Iterator[None]:
    """Removes what an earlier conversion wrote in a folder, and lists what is written there inside the block.

    Args:
        folder: it may not exist.
        used: images of the data set that is written.

    Raises:
        ValueError: an image of the data set is one of the files to remove.
    """
    old = [os.path.join(folder, name) for name in _listed(folder)]
    images = {os.path.realpath(path) for path in used}
    if inside := next((path for path in old if os.path.realpath(path) in images), None):
        raise ValueError(f"the image {inside} of the data set is in the output folder {folder}; name another folder")
    for path in old:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        with contextlib.suppress(OSError):  # not empty, or removed already
            os.removedirs(os.path.dirname(path))
    os.makedirs(folder, exist_ok=True)
    before = _files(folder)
    try:
        yield
    finally:
        write_text("".join(f"{name}\n" for name in sorted(_files(folder) - before)), os.path.join(folder, LIST))


def _listed(folder: str) -> list[str]:
    path = os.path.join(folder, LIST)
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        names = [line.rstrip("\n") for line in file]
    return [name for name in names if name and not os.path.isabs(name) and ".." not in name.split("/")]


def _files(folder: str) -> set[str]:
    """The files below a folder, but for the list, from the folder with slashes."""
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {os.path.relpath(path, folder).replace(os.sep, "/") for path in paths} - {LIST}
