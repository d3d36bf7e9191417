from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def square(annotation_id, x):
    polygon = [x, 0, x + 20, 0, x + 20, 20, x, 20]
    return {"id": annotation_id, "image_id": 1, "category_id": 1, "bbox": [x, 0, 20, 20], "segmentation": [polygon]}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.json"
    images = [{"id": 1, "height": 40, "width": 60, "file_name": "1.jpg"}]
    path.write_text(json.dumps({"images": images, "annotations": [square(1, 0), square(2, 10)]}))
    return str(path)


def run(monkeypatch, tool, *arguments):
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")


def test_process_annotations(source, tmp_path, monkeypatch, capsys):
    output = str(tmp_path / "out.json")
    arguments = ("--input", source, "--output", output, "--format", "polygon", "--workers", "1")
    run(monkeypatch, "process_annotations.py", *arguments)
    assert "with an occluder         2 (100.0%)" in capsys.readouterr().out
    assert isinstance(json.loads(Path(output).read_text())["annotations"][0]["bg_object_segmentation"][0], list)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "process_annotations.py", *arguments)
    assert stopped.value.code == 1
    assert f"error: {output} exists; pass --overwrite" in capsys.readouterr().err


def test_build_coco_occ(source, tmp_path, monkeypatch, capsys):
    output = str(tmp_path / "out.json")
    run(monkeypatch, "build_coco_occ.py", "--input", source, "--output", output, "--threshold", "0.3")
    assert "same-class-iou  100.0%  <- written" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(monkeypatch, "build_coco_occ.py", "--input", str(tmp_path / "none.json"), "--output", output, "--overwrite")
    assert "none.json" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_process_sh_passes_its_arguments_on_and_keeps_the_folder(source, tmp_path):
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    command = ["bash", str(ROOT / "process.sh"), "--input", "in.json", "--output", "out.json", "--workers", "1"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out.json").read_text())["annotations"][0]["bg_object_segmentation"]["size"] == [
        40,
        60,
    ]
