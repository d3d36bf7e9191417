"""detectron2 is optional: these tests run with and without it."""

import ast
import pathlib
import subprocess
import sys

import bcnet

PACKAGE = pathlib.Path(bcnet.__file__).parent
PLUGIN = PACKAGE / "detectron2"


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import of a file, in absolute form.
            parents = file.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            yield ".".join([*parents, node.module or ""])


def test_nothing_outside_the_plugin_imports_detectron2():
    files = [file for file in PACKAGE.rglob("*.py") if PLUGIN not in file.parents]
    files += (PACKAGE.parent / "tools").glob("*.py")
    assert len(files) > 30
    offenders = [(file.name, m) for file in files for m in imported_modules(file) if m.split(".")[0] == "detectron2"]
    assert offenders == []


def test_the_plugin_is_imported_for_its_host_alone():
    importers = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if PLUGIN not in file.parents and any(m.startswith("bcnet.detectron2") for m in imported_modules(file))
    }
    assert importers <= {"cli/train_processes.py", "structures/output.py"}


def test_without_detectron2_the_plugin_says_what_it_needs():
    # A module name that is None in sys.modules cannot be imported.
    code = (
        "import sys; sys.modules['detectron2'] = None; import bcnet.training, bcnet.prediction, bcnet.data; "
        "import bcnet.detectron2"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert run.returncode == 1
    assert "bcnet.detectron2 needs detectron2, which is on no package index" in run.stderr
