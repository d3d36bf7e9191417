"""Partial results of a long conversion: one line of JSON per image, next to the output."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from bcnet.files import open_locked


class SideFile:
    """An append-only file of results in a fixed order, which an interrupted run leaves and the next one continues.

    The first line describes the work (input and options). Results come one to a line, and only whole
    lines count: what a killed process left of the last one is cut off. The file is locked while it is open.

    Args:
        path: of the file; made where it does not exist.
        description: JSON-able; what the results depend on.
        restart: discard results of another description instead of refusing them.

    Raises:
        ValueError: the file holds results of another description (and not `restart`).
        BlockingIOError: another process has the file open.
    """

    def __init__(self, path: str, description: dict, *, restart: bool = False) -> None:
        self.path = path
        self.count = 0  # results in the file
        self._file = open_locked(path, "a+b", f"{path} is in use by another conversion into the same output")
        try:
            self._continue(json.dumps(description).encode() + b"\n", restart)
        except BaseException:
            self._file.close()
            raise

    def _continue(self, header: bytes, restart: bool) -> None:
        self._file.seek(0)
        found = self._file.readline()
        if found != header:
            # A header that was cut off while it was written has no results after it.
            if found.endswith(b"\n") and not restart:
                raise ValueError(
                    f"{self.path} holds partial results of another input or other options: {found.decode().strip()}, "
                    f"now {header.decode().strip()}. Remove it, or pass --overwrite to start again"
                )
            self._file.truncate(0)
            self._file.write(header)
            self._file.flush()
        self._header_length = len(header)
        end = self._header_length
        self._file.seek(end)
        for line in self._file:
            if not line.endswith(b"\n") or not _is_json(line):
                break
            self.count += 1
            end += len(line)
        self._file.truncate(end)

    def append(self, lines: list[str]) -> None:
        """Adds results, each a JSON text without line breaks."""
        self._file.write("".join(line + "\n" for line in lines).encode("ascii"))
        self._file.flush()
        self.count += len(lines)

    def clear(self) -> None:
        """Drops all results."""
        self._file.truncate(self._header_length)
        self.count = 0

    def results(self) -> Iterator[dict]:
        """All results, in order."""
        self._file.seek(self._header_length)
        for line in self._file:
            yield json.loads(line)

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Deletes the file, before the lock goes."""
        os.unlink(self.path)
        self._file.close()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
