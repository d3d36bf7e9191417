"""Report of loaded weights: which tensors were loaded, skipped, reshaped or missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bcnet.checkpoint import names
from bcnet.checkpoint.convert import Conversion, LeftOut


@dataclass
class LoadReport:
    """Result of loading for every tensor of a file and of a model.

    Attributes:
        source: where the weights came from.
        origin: the code base of their names.
        model: the model's class.
        class_names: names of the classes 0..K-1 in the file; empty without them.
        loaded: the model's tensors that were loaded, with their names in the file ("" for a value implied by the
            format).
        skipped: tensors of the file that are not used, and why.
        reshaped: tensors of another shape in the file than in the model: (shape in the file, in the model). The
            model keeps the values that it was initialised with; another number of classes shows here.
        missing: the model's tensors that the file lacks; the model keeps its values.
        warnings: settings of the model that contradict how the weights were trained.
    """

    source: str
    origin: str
    model: str
    class_names: tuple[str, ...] = ()
    loaded: dict[str, str] = field(default_factory=dict)
    skipped: list[LeftOut] = field(default_factory=list)
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def skip(self, key: str, shape: tuple[int, ...], reason: str, *, harmless: bool = False) -> None:
        self.skipped.append(LeftOut(key, shape, reason, harmless))

    @property
    def differs(self) -> bool:
        """Whether the model's output differs from that of the model that the weights are from."""
        return bool(self.missing or self.reshaped or any(not entry.harmless for entry in self.skipped))

    @property
    def is_backbone(self) -> bool:
        """Whether these are weights of a backbone, that training a detector starts from."""
        return bool(self.loaded) and not self.reshaped and all(key.startswith("backbone.") for key in self.loaded)

    def table(self) -> str:
        """The report as a table; tensors of one module with the same result share a row."""
        rows = _loaded_rows("loaded", self.loaded)
        for key, (in_file, in_model) in self.reshaped.items():
            rows.append(("reshaped", "1", f"{key} {list(in_model)}", f"{list(in_file)}: re-initialised"))
        for module, keys in _by_module(self.missing):
            rows.append(("missing", str(len(keys)), module, "-: stays as initialised"))
        rows += _skipped_rows(self.skipped)
        lines = [self.title(), *_table([("", "tensors", "in the model", "in the file"), *rows])]
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])

    def title(self) -> str:
        """The report in one line."""
        total = len(self.loaded) + len(self.reshaped) + len(self.missing)
        name = os.path.basename(self.source.rstrip("/"))  # of a model folder too
        return (
            f"{name} ({self.origin}) -> {self.model}: {len(self.loaded)} of the model's "
            f"{total} tensors loaded, {len(self.reshaped)} reshaped, {len(self.missing)} missing; {len(self.skipped)} "
            "of the file skipped"
        )

    def examples(self, limit: int = 3) -> str:
        """Some modules of which nothing was loaded, of the model and of the file."""
        missing = [module for module, _ in _by_module(self.missing)]
        skipped = [module for module, _ in _by_module([entry.key for entry in self.skipped if not entry.harmless])]
        sides = (("the model's", missing), ("the file's", skipped))
        return "; ".join(
            f"{side} {', '.join(modules[:limit])}{', ...' if modules[limit:] else ''} alone"
            for side, modules in sides
            if modules
        )

    def __str__(self) -> str:
        return self.table()


def conversion_table(conversion: Conversion, source: str, output: str) -> str:
    """The result of `convert_checkpoint` as a table like `LoadReport.table`."""
    rows = _loaded_rows("written", conversion.sources) + _skipped_rows(conversion.left_out)
    title = (
        f"{os.path.basename(source)} ({names.description(conversion.dialect)}) -> {output}: {len(conversion.state)} "
        f"tensors written, {len(conversion.left_out)} skipped"
    )
    return "\n".join([title, *_table([("", "tensors", "bcnet's name", "in the file"), *rows])])


_Row = tuple[str, str, str, str]


def _loaded_rows(verb: str, sources: Mapping[str, str]) -> list[_Row]:
    return [
        (verb, str(len(keys)), module, _common([sources[key] for key in keys if sources[key]]) or "-: by definition")
        for module, keys in _by_module(sources)
    ]


def _skipped_rows(skipped: Iterable[LeftOut]) -> list[_Row]:
    by_reason: dict[tuple[str, bool], list[str]] = {}
    for entry in skipped:
        by_reason.setdefault((entry.reason, entry.harmless), []).append(entry.key)
    return [
        ("skipped", str(len(group)), f"-: {reason}", module)
        for (reason, harmless), keys in by_reason.items()
        for module, group in ([(_common(keys), keys)] if harmless else _by_module(keys))
    ]


def _table(rows: list[_Row]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]


def _by_module(keys: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Keys grouped by the first names of their path, in order, and the common part of each group."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        depth = 3 if key.startswith(("box_branch.", "mask_branch.", "roi_heads.")) else 2
        module = ".".join(key.split(".")[:-1][:depth]) if "." in key else key.split("_")[0]
        groups.setdefault(module, []).append(key)
    return [(_common(group), group) for group in groups.values()]


def _common(keys: list[str]) -> str:
    """The path that keys share, with * for what differs: the whole key of a single one."""
    if len(keys) <= 1:
        return keys[0] if keys else ""
    first, last = min(keys), max(keys)
    end = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: max(first.rfind(".", 0, end), first.rfind("_", 0, end)) + 1] + "*"
