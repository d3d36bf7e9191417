"""Safe unpickling of numpy weights: a restricted unpickler that executes no code of the file.

Model zoos ship weights as pickles of dicts of numpy arrays, written by Python 2 or 3. A pickle is a program:
loading a hostile one with `pickle.load` runs it. The unpickler here resolves only the few global names that numpy
arrays need, each to a stand-in of our own that builds numeric arrays from raw bytes; numpy's own unpickling, which
trusts the flags in the file, is not used either.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import re
from collections.abc import Callable, Iterable
from typing import BinaryIO, Literal

import numpy as np
import torch

_NUMERIC = re.compile(r"[?biufc]\d{0,2}")


class RefusedPickleError(pickle.UnpicklingError):
    """The pickle contains objects other than numeric numpy arrays and plain containers."""


def load_numpy_pickle(file: BinaryIO) -> object:
    """Loads a pickle of numeric numpy arrays, numbers, strings and plain containers of these.

    Strings of Python 2 are read as latin1, the encoding that keeps every byte.

    Returns:
        The object, with arrays as `PickledArray` at any depth (see `array_of`).

    Raises:
        RefusedPickleError: the pickle names any other object; nothing of it was executed.
        Exception: any, for a corrupt file.
    """
    return _Unpickler(file, encoding="latin1").load()


class PickledArray:
    """A numeric array as numpy pickles it: created empty, then given its state."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, raw = state
        self.array = _array(raw, dtype, shape, "F" if fortran_order else "C")


class _Dtype:
    """A numeric dtype: the code of its kind and size, then its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
            raise RefusedPickleError(f"an array of the type {code!r}, which is not a number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Admitted:
    """Stand-in for a global name of the pickle: callable, created per use, and without attributes to set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args):
        return self._function(*args)


def _array(raw: object, dtype: object, shape: Iterable[int], order: Literal["C", "F"]) -> np.ndarray:
    if not isinstance(dtype, _Dtype):
        raise RefusedPickleError(f"an array of the type {dtype!r}, which is not a number")
    if isinstance(raw, str):  # a byte string of Python 2
        raw = raw.encode("latin1")
    if not isinstance(raw, (bytes, bytearray)):
        raise RefusedPickleError(f"an array whose values are a {type(raw).__name__}, not raw numbers")
    sides = tuple(int(side) for side in shape)
    if math.prod(sides) * dtype.dtype.itemsize != len(raw):
        raise ValueError(f"an array of shape {list(sides)} and {len(raw)} bytes")
    return np.frombuffer(raw, dtype.dtype).reshape(sides, order=order).astype(dtype.dtype.newbyteorder("="))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode` as pickles below protocol 3 use it, for bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError(f"text to be encoded as {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """``bytes()`` as pickles below protocol 3 write the empty ones."""
    return b""


_ADMITTED: dict[tuple[str, str], Callable] = {
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
}
for _package in ("numpy.core", "numpy._core"):  # the second since numpy 2
    _ADMITTED[_package + ".multiarray", "_reconstruct"] = lambda subtype, shape, code: PickledArray()
    _ADMITTED[_package + ".multiarray", "scalar"] = lambda dtype, raw: _array(raw, dtype, (), "C").item()
    _ADMITTED[_package + ".numeric", "_frombuffer"] = lambda raw, dtype, shape, order: PickledArray(
        _array(raw, dtype, shape, order)
    )


def numpy_admitted() -> contextlib.AbstractContextManager:
    """Context in which ``torch.load(weights_only=True)`` reads numpy's numbers and arrays by the stand-ins here.

    Without effect for torch before 2.7, which does not support stand-ins; there such a file is rejected.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
        return contextlib.nullcontext()
    names = {f"{module}.{name}": value for (module, name), value in _ADMITTED.items() if module.startswith("numpy")}
    return torch.serialization.safe_globals([(value, name) for name, value in names.items()])


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Admitted:
        try:
            return _Admitted(_ADMITTED[module, name])
        except KeyError:
            raise RefusedPickleError(f"{module}.{name}") from None

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("it refers to data outside of the file")


def array_of(value: object) -> object:
    """The numpy array of a `PickledArray`; any other value unchanged."""
    return value.array if isinstance(value, PickledArray) else value
