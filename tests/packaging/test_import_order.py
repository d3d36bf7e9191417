"""Imports between the packages of bcnet point downwards in CONTRIBUTING.md's table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Imports inside of functions that point upwards, each with its reason.
UPWARDS = {
    ("bcnet.config.loading", "bcnet.modeling"),  # the registered backbones, whose own keys a config may have
    ("bcnet.config.validate", "bcnet.modeling"),  # the registered names, for the error about an unknown one
    ("bcnet.prediction.loading", "bcnet.export"),  # `bcnet.load("model.onnx")`
    ("bcnet.structures.output", "bcnet.detectron2"),  # `Detections.to_detectron2`
    ("bcnet.structures.output", "bcnet.visualization"),  # `Detections.plot`
    ("bcnet.cli.train_processes", "bcnet.detectron2"),  # ``--host detectron2``
}


def imports(source: str) -> set[str]:
    """Modules that a file imports anywhere but for its types alone."""
    found = set()
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
    return found


def packages() -> list[str]:
    """The packages of the table, from the top down."""
    return re.findall(r"^\| `bcnet/(\w+)/`", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)


def upward_imports() -> set[tuple[str, str]]:
    order = [name for name in packages() if name != "detectron2"]
    modules = {path.stem for path in (ROOT / "bcnet").glob("*.py")}
    found = set()
    for path in (ROOT / "bcnet").rglob("*.py"):
        importer = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        own = importer.split(".")[1] if importer.count(".") else ""
        for imported in imports(path.read_text()):
            top, _, rest = imported.partition(".")
            other = rest.split(".")[0]
            if top != "bcnet" or other == own or other not in packages() or own in ("", "__main__", "detectron2"):
                continue
            if other == "detectron2" or own in modules or order.index(other) < order.index(own):
                found.add((importer, f"bcnet.{other}"))
    return found


def test_the_table_has_every_package():
    assert sorted(packages()) == sorted(path.parent.name for path in (ROOT / "bcnet").glob("*/__init__.py"))


def test_imports_point_downwards():
    assert upward_imports() == UPWARDS


def test_what_counts_as_an_import():
    source = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from bcnet.c import d\n"
    assert imports(source) == {"b", "bcnet.c.d"}
