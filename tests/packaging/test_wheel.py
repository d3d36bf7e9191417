"""What the wheel holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bcnet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: building leaves files behind."""
    pytest.importorskip("setuptools", minversion="77", reason="the build backend that pyproject.toml names")
    source = tmp_path_factory.mktemp("source")
    unwanted = shutil.ignore_patterns("__pycache__")
    for path in ("bcnet", "configs", "benchmarks", "studies", "tests", "tools"):
        shutil.copytree(ROOT / path, source / path, ignore=unwanted)
    for path in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / path, source)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_package_types_and_configs_and_nothing_else(wheel):
    metadata = f"bcnet-{bcnet.__version__}.dist-info/"
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "bcnet").rglob("*.py")}
    configs = {f"bcnet/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert len(configs) > 20
    content = {name for name in wheel.namelist() if not name.startswith(metadata)}
    assert content == modules | configs | {
        "bcnet/py.typed",
        "bcnet/models/lite.safetensors",
        "bcnet/models/lite-detector.safetensors",
    }
    assert f"{metadata}licenses/LICENSE" in wheel.namelist()


def test_the_command_and_the_oldest_python(wheel):
    metadata = f"bcnet-{bcnet.__version__}.dist-info/"
    assert b"bcnet = bcnet.cli:main" in wheel.read(f"{metadata}entry_points.txt")
    assert b"Requires-Python: >=3.10" in wheel.read(f"{metadata}METADATA")
