"""The latency and AP of exported models: the tool with eager alone; tests/export compares the files."""

from __future__ import annotations

import json

from exported_models import NAMES, write_images
from small_models import finding_detector

from bcnet.checkpoint import write_checkpoint
from benchmarks import exported


def test_eager_alone(tmp_path, capsys):
    cfg, model = finding_detector("BCNetFCOS")
    write_checkpoint(
        {"model": model.state_dict(), "config": cfg.dump(), "class_names": list(NAMES)}, str(tmp_path / "m.pth")
    )
    write_images(tmp_path / "images", 1)
    options = ["--variants", "eager", "--threads", "1", "--repeats", "3", "--json", str(tmp_path / "out.json")]
    exported.main(
        ["--weights", str(tmp_path / "m.pth"), "--size", "64", "--images", str(tmp_path / "images"), *options]
    )
    assert "| eager |" in capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    assert len(result["seconds"]["eager"]) == 3 and result["detections"] == {"eager": 10} and result["AP"] == {}
    assert result["environment"]["threads"] == 1


def test_ratios_are_those_of_medians_to_the_first():
    seconds = {"eager": [0.1, 0.3, 0.2], "OpenVINO": [0.1, 0.1, 0.7]}
    rows = exported.table(seconds, {"eager": 5, "OpenVINO": 4}, {"eager": {"bbox": 54.46, "segm": 51.0}})
    assert rows[1] == ["eager", "200 ms (100-300)", "1.00", "5", "54.5", "51.0"]
    assert rows[2] == ["OpenVINO", "100 ms (100-700)", "0.50", "4", "-", "-"]
