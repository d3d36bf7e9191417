"""``bcnet export`` and ``bcnet predict --weights model.onnx`` on the command line, the latter without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("onnxscript", reason="needs the extra export")
pytest.importorskip("onnxruntime", reason="needs the extra export")

from exported_models import NAMES, write_images
from small_models import finding_detector

from bcnet.checkpoint import write_checkpoint
from bcnet.cli import main

# Imports of torch fail, as where it is not installed.
WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from bcnet.cli import main
main(sys.argv[1:])
"""


def test_a_model_is_exported_checked_and_predicts_without_torch(tmp_path, capsys):
    cfg, model = finding_detector("BCNetFCOS")
    content = {"model": model.state_dict(), "config": cfg.dump(), "class_names": list(NAMES)}
    write_checkpoint(content, str(tmp_path / "model.pth"))
    write_images(tmp_path / "images", 4)
    weights, file = str(tmp_path / "model.pth"), str(tmp_path / "model.onnx")
    checked = ["--check", str(tmp_path / "images")]
    main(["export", "--weights", weights, "--output", file, "--dynamic", *checked, "SEED", "2"])
    output = capsys.readouterr().out
    assert "FCOS of 3 classes, input any size, in " in output
    assert "detections in 4 images: the same as eager" in output

    options = ["--input", str(tmp_path / "images"), "--layers", "--score-threshold", "0.01", "--max-detections", "7"]
    main(["predict", "--weights", weights, "--output", str(tmp_path / "eager.json"), *options])
    command = ["predict", "--weights", file, "--output", str(tmp_path / "onnx.json"), *options]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, expected = (json.loads((tmp_path / name).read_text()) for name in ("onnx.json", "eager.json"))
    assert f"{len(expected['annotations'])} instances in 4 images" in done.stdout and len(expected["annotations"]) > 20
    assert (found["categories"], found["images"]) == (expected["categories"], expected["images"])
    for ours, theirs in zip(found["annotations"], expected["annotations"], strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=0.01)
        for key in ("category_id", "image_id", "number", "depth"):
            assert ours[key] == theirs[key]
        assert ours["area"] == pytest.approx(theirs["area"], abs=2)

    pictures = [*command, "--pictures", str(tmp_path / "pictures")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *pictures], capture_output=True, text=True)
    assert done.returncode == 1 and "pictures, videos and tiles of an exported model need torch" in done.stderr
    with pytest.raises(SystemExit):
        main([*command, "MODEL.DEVICE", "cpu"])
    assert "config keys cannot change" in capsys.readouterr().err
