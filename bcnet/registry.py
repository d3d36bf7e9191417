"""Registry of components by name (fvcore's, with an error that lists the registered names), and imports of plug-ins."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from fvcore.common.registry import Registry as _FvcoreRegistry

T = TypeVar("T")


class Registry(_FvcoreRegistry):
    """Components by name, as a config or a command line gives it.

    A component of another package registers itself when its module is imported::

        @BACKBONE_REGISTRY.register()
        class MyBackbone(nn.Module): ...
    """

    def __init__(self, name: str, *, key: str, kind: str) -> None:
        """
        Args:
            name: the registry's own, for fvcore's messages.
            key: where names come from, e.g. the config key "MODEL.BACKBONE.NAME".
            kind: what the components are, e.g. "backbone".
        """
        super().__init__(name)
        self.key = key
        self.kind = kind

    @overload
    def register(self, obj: None = None, *, name: str | None = None) -> Callable[[T], T]: ...

    @overload
    def register(self, obj: T, *, name: str | None = None) -> T: ...

    def register(self, obj: Any = None, *, name: str | None = None):
        """Registers an object under a name, its own by default; without an object, a decorator that does.

        Raises:
            AssertionError: the name is taken by another object (from fvcore).
        """
        if obj is None:
            return lambda decorated: self.register(decorated, name=name)
        self._do_register(name or obj.__name__, obj)
        return obj

    def names(self) -> list[str]:
        """The registered names, in alphabetical order."""
        return sorted(name for name, _ in self)

    def get(self, name: str) -> Any:
        """The component of that name.

        Raises:
            ValueError: there is none; lists the registered names.
        """
        if name not in self:
            raise ValueError(self.unknown(name))
        return super().get(name)

    def unknown(self, name: object) -> str:
        """Error message for a name that is not registered."""
        return (
            f"{self.key} is {name!r}; registered are {', '.join(map(repr, self.names()))} (a {self.kind} of another "
            "package is registered by importing its module: --import MODULE)"
        )


def import_modules(names: Iterable[str]) -> None:
    """Imports modules by name, also from the current folder, as ``python -m`` does.

    Raises:
        ImportError: no such module, or one of its own imports fails.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        importlib.import_module(name)
