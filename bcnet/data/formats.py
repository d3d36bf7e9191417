"""Registry of annotation readers: the formats of data set specs, and the files and folders of each format."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bcnet.data.records import DatasetInfo, ImageRecord
from bcnet.registry import Registry


@dataclass(frozen=True)
class SpecPart:
    """One path of a data set's spec.

    Attributes:
        what: description, such as "annotation file".
        example: placeholder in messages.
        file, folder: whether the path may be a file, a folder; at least one of them, unless it is a word.
        suffixes: suffixes of such files. As a path may contain colons, the spec is split after one of these if present.
        word: the part is not a path but a word, such as the name of a split.
        optional: the part may be omitted, with all parts after it; the reader is then called with fewer paths.
    """

    what: str
    example: str
    file: bool = False
    folder: bool = False
    suffixes: tuple[str, ...] = ()
    word: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        if not (self.file or self.folder or self.word):
            raise ValueError(
                f"the part {self.what!r} of a spec is neither a file nor a folder: pass file=True or folder=True"
            )

    def exists(self, path: str) -> bool:
        return self.word or (self.file and os.path.isfile(path)) or (self.folder and os.path.isdir(path))


ANNOTATION_FILE = SpecPart("annotation file", "path/to/annotations.json", file=True, suffixes=(".json",))
ANNOTATION_FILE_OR_FOLDER = SpecPart(
    "annotation file", "path/to/annotations.json", file=True, folder=True, suffixes=(".json",)
)
XML_FILE_OR_FOLDER = SpecPart("annotation file", "path/to/annotations.xml", file=True, folder=True, suffixes=(".xml",))
YAML_FILE_OR_FOLDER = SpecPart("data file", "path/to/data.yaml", file=True, folder=True, suffixes=(".yaml", ".yml"))
FOLDER = SpecPart("folder", "path/to/folder", folder=True)
SPLIT = SpecPart("split", "train", word=True, optional=True)
IMAGE_FOLDER = SpecPart("image folder", "path/to/images", folder=True)
OPTIONAL_IMAGE_FOLDER = replace(IMAGE_FOLDER, optional=True)


@dataclass(frozen=True)
class Reader:
    """A registered reader.

    Attributes:
        format: its name, the prefix of a spec.
        read: function that takes one path per part, and the data set's name as `name`.
        parts: the paths of its spec, in order.
    """

    format: str
    read: Callable[..., tuple[list[ImageRecord], DatasetInfo]]
    parts: tuple[SpecPart, ...]

    @property
    def form(self) -> str:
        """The spec with placeholders, optional parts in brackets: "labelme:path/to/folder[:path/to/images]"."""
        parts = (f"[:{part.example}]" if part.optional else f":{part.example}" for part in self.parts)
        return self.format + "".join(parts)

    def accepts(self, count: int) -> bool:
        """Whether a spec may have this number of paths."""
        return sum(not part.optional for part in self.parts) <= count <= len(self.parts)

    def split(self, rest: str) -> tuple[str, ...] | None:
        """Splits a spec without its format into paths; None unless there is one for every part that is not optional."""
        paths = []
        for position, part in enumerate(self.parts[:-1]):
            rest_is_optional = self.parts[position + 1].optional
            if rest_is_optional and os.path.exists(os.path.expanduser(rest)):
                break
            ends = [rest.find(f"{suffix}:") + len(suffix) for suffix in part.suffixes if f"{suffix}:" in rest]
            # Without a known suffix, the last path is assumed to have no colons.
            end = min(ends) if ends else rest.rfind(":") if position == len(self.parts) - 2 else rest.find(":")
            if end < 0 and rest_is_optional:
                break
            if end < 0:
                return None
            paths.append(rest[:end])
            rest = rest[end + 1 :]
        paths.append(rest)
        return tuple(os.path.expanduser(path) for path in paths) if all(paths) else None

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Descriptions of the paths that do not exist, such as "image folder 'x'"."""
        return [f"{part.what} {path!r}" for part, path in zip(self.parts, paths, strict=False) if not part.exists(path)]


class ReaderRegistry(Registry):
    """The readers by their formats."""

    def register(
        self,
        obj: Callable[..., tuple[list[ImageRecord], DatasetInfo]] | None = None,
        *,
        name: str | None = None,
        parts: Sequence[SpecPart] = (ANNOTATION_FILE, IMAGE_FOLDER),
    ):
        """Registers a reader; without `obj`, returns a decorator.

        Args:
            obj: the function, called as ``obj(path, ..., name=...)`` with one path per part, after a check that the
                paths exist. It returns the images in the order of their ids, and the data set's classes and files.
            name: the format, the prefix of specs: a word without a colon. Default: the function's name.
            parts: the paths of a spec, in order.

        Raises:
            AssertionError: the format is already registered (from fvcore).
            ValueError: a colon in the name, or no parts.
        """
        if obj is None:
            return lambda function: self.register(function, name=name, parts=parts)
        name = name or obj.__name__
        if ":" in name or not parts:
            raise ValueError(f"a format is a word without a colon and has at least one path, got {name!r}, {parts!r}")
        self._do_register(name, Reader(name, obj, tuple(parts)))
        return obj


READER_REGISTRY = ReaderRegistry("READER", key="the format of a data set", kind="reader")
