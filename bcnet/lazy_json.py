"""Lazy JSON lists: elements are parsed when they are asked for, and only the text of the file stays in memory.

Parsed annotations of COCO take several times the memory of their text.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import Any, overload

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


class LazyList(Sequence[Any]):
    """The elements of a JSON list, parsed anew in every access."""

    def __init__(self, text: str, starts: array[int]) -> None:
        """
        Args:
            text: valid JSON.
            starts: position in it of each element.
        """
        self._text = text
        self._starts = starts

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [_DECODER.raw_decode(self._text, start)[0] for start in self._starts[index]]
        return _DECODER.raw_decode(self._text, self._starts[index])[0]

    def __iter__(self) -> Iterator[Any]:
        return (_DECODER.raw_decode(self._text, start)[0] for start in self._starts)

    def __len__(self) -> int:
        return len(self._starts)


def parse_lazily(content: bytes, lists: Collection[str]) -> Any:
    """As `json.loads`, but of an object at the top the lists under some keys become `LazyList`.

    Raises:
        ValueError, RecursionError: as `json.loads`.
    """
    text = content.decode(json.detect_encoding(content), "surrogatepass")
    try:
        return _parse_object(text, lists)
    except ValueError:
        return json.loads(text)  # another value, or the error as json words it


class _NotAnObject(ValueError):
    """The text is not a well-formed JSON object."""


def _parse_object(text: str, lists: Collection[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    position, is_empty = _opened(text, _skip_space(text, 0), "{", "}")
    while not is_empty:
        key, position = _DECODER.raw_decode(text, position)
        position = _skip_space(text, position)
        if not isinstance(key, str) or text[position : position + 1] != ":":
            raise _NotAnObject
        position = _skip_space(text, position + 1)
        if key in lists and text[position : position + 1] == "[":
            values[key], position = _scan_list(text, position)
        else:
            values[key], position = _DECODER.raw_decode(text, position)
        position, is_empty = _next(text, position, "}")
    if _skip_space(text, position) != len(text):
        raise _NotAnObject
    return values


def _scan_list(text: str, position: int) -> tuple[LazyList, int]:
    """The list at a position, each element of which is parsed once to find its end, and the position behind it."""
    starts = array("q")
    position, is_empty = _opened(text, position, "[", "]")
    while not is_empty:
        starts.append(position)
        position, is_empty = _next(text, _DECODER.raw_decode(text, position)[1], "]")
    return LazyList(text, starts), position


def _opened(text: str, position: int, bracket: str, closing: str) -> tuple[int, bool]:
    """The position of the first element behind a bracket; or, of an empty list or object, behind it, and True."""
    if text[position : position + 1] != bracket:
        raise _NotAnObject
    position = _skip_space(text, position + 1)
    is_empty = text[position : position + 1] == closing
    return position + is_empty, is_empty


def _next(text: str, position: int, closing: str) -> tuple[int, bool]:
    """The position of the element behind a comma; or behind the closing bracket, and True."""
    position = _skip_space(text, position)
    character = text[position : position + 1]
    if character == closing:
        return position + 1, True
    if character != ",":
        raise _NotAnObject
    return _skip_space(text, position + 1), False


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
