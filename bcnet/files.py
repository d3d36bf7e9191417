"""File helpers: atomic writes, JSON reading and writing, and file locks between processes."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import IO, Any

import orjson
import portalocker

from bcnet.garbage_collection import garbage_collection_paused
from bcnet.lazy_json import parse_lazily

# An integer that may exceed 64 bits. To look for its digits, as zeros, takes a tenth of the time of parsing.
_LONG_INTEGER = re.compile(rb"-[0-9]{19}|[\[:,\s][0-9]{20}")
_AS_ZEROS = bytes.maketrans(b"0123456789", b"0" * 10)
_CHUNK = 2**20  # bytes searched at a time

_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike, mode: str = "w", encoding: str = "utf-8", *, sync: bool = True
) -> Iterator[IO[Any]]:
    """Opens a file that replaces `path` when the block ends; on an error `path` is unchanged.

    The content goes to a temporary file beside the target, is flushed to the disk (`sync`) and renamed. The folder is
    made if missing; the temporary file is always removed.

    Args:
        path: the file to write.
        mode: "w" for text or "wb" for bytes.
        encoding: of text.
        sync: wait until the content is on the disk, so that `path` is complete even after a power failure. Not worth
            the time for many files that can be made again.

    Raises:
        OSError: the file cannot be written; the message names the file, and says if the disk is full.
    """
    path = os.fspath(path)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, mode, encoding=None if "b" in mode else encoding) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if (full := _full_disk(error)) is not None:
            message = f"no space left on the disk to write {path!r}; what was there before is unchanged"
            raise OSError(full.errno, message) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error of a full disk, also where another one hides it: `torch.save` raises one of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return error
        error = error.__context__
    return None


def write_text(text: str, path: str | os.PathLike) -> None:
    """Writes a text file atomically (`atomic_write`)."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: str | os.PathLike, value: object, *, indent: int | None = 2) -> None:
    """Writes a JSON file atomically. NaN and infinity, which JSON lacks, become null."""
    separators = (",", ":") if indent is None else None
    with atomic_write(path) as file:
        json.dump(_without_nan(value), file, indent=indent, separators=separators)
        file.write("\n")


def write_json_list(path: str | os.PathLike, values: Iterable[object]) -> None:
    """Writes a JSON list atomically, one element per line and one at a time, so that memory stays flat."""
    with atomic_write(path) as file:
        separator = "[\n"
        for value in values:
            file.write(separator + json.dumps(value))
            separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON; names the file.
    """
    with open(path, "rb") as file:
        return parse_json(file.read(), path)


@garbage_collection_paused()
def parse_json(content: bytes, source: str | os.PathLike, *, lazy_lists: Collection[str] = ()) -> Any:
    """Parses JSON bytes as `read_json` does; `source` names them in errors.

    Of an object, the lists under the keys `lazy_lists` are parsed element by element when they are asked for
    (`bcnet.lazy_json.LazyList`).
    """
    if not (lazy_lists or _may_have_long_integers(content)):
        with contextlib.suppress(ValueError):
            return orjson.loads(content)  # some three times faster than json
    # What is not strict JSON in UTF-8: NaN and Infinity, UTF-16, a byte order mark; or the error as json words it; and
    # integers of more than 64 bits, of which orjson makes floats.
    try:
        return parse_lazily(content, lazy_lists) if lazy_lists else json.loads(content)
    # JSONDecodeError, bytes that are not text, a number of too many digits; or brackets nested without end
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(source)} is not valid JSON (a truncated download?): {error}") from error


def _may_have_long_integers(content: bytes) -> bool:
    chunks = (content[start : start + _CHUNK + 20] for start in range(0, len(content), _CHUNK))
    return any(b"0" * 19 in chunk.translate(_AS_ZEROS) and _LONG_INTEGER.search(chunk) for chunk in chunks)


def open_locked(path: str | os.PathLike, mode: str, message: str) -> IO[Any]:
    """Opens a file with an exclusive lock, which is held until the file is closed.

    Raises:
        BlockingIOError: another process holds the lock; with the message.
    """
    while True:
        file = open(path, mode, encoding=None if "b" in mode else "utf-8")  # noqa: SIM115 (the caller closes it)
        try:
            portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
            # The previous owner may have deleted the file between open and lock; the lock would then protect nothing.
            if _is_still_at(file, path):
                return file
            file.close()
        except portalocker.LockException as error:
            file.close()
            raise BlockingIOError(message) from error
        except BaseException:
            file.close()
            raise


def _is_still_at(file: IO[Any], path: str | os.PathLike) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
