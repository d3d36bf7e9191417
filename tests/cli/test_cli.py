"""The `bcnet` command and the configs that come with it."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_lines import command_lines
from PIL import Image
from pycocotools.coco import COCO
from small_models import small_config, write_small_data_set

import bcnet
from bcnet.checkpoint import write_checkpoint
from bcnet.cli import describe, main
from bcnet.cli import train_processes as command_line
from bcnet.config import find_config, load_config, packaged_configs
from bcnet.modeling import build_model


def failure(arguments, capsys) -> tuple[int, str]:
    """Status and last line of a command that fails."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights with their config, as training leaves them, that find something; and a data set."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    data_set = write_small_data_set(folder / "data", images=2)
    cfg = small_config(MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0, DATASETS__TEST=(data_set,), OUTPUT_DIR=str(folder))
    model = build_model(cfg)
    model.mask_branch.head.occludee_mask.predictor.bias.data.fill_(3.0)
    content = {"model": model.state_dict(), "config": cfg.dump(), "class_names": ["cup", "plate", "fork"]}
    write_checkpoint({**content, "iteration": 3}, str(folder / "model_final.pth"))
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in ("train", "evaluate", "predict", "draw", "info", "data", "weights"))


@pytest.mark.parametrize("command", command_lines())
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: bcnet {command} [-h]")


def test_the_package_runs_as_a_module():
    shown = subprocess.run([sys.executable, "-m", "bcnet", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"bcnet {bcnet.__version__}\n"


TOOLS = {
    "train_net.py": "train",
    "evaluate.py": "evaluate",
    "visualize.py": "draw",
    "process_annotations.py": "data annotate",
    "build_coco_occ.py": "data occ-split",
    "make_synthetic.py": "data scenes",
    "visualize_data.py": "data draw",
    "convert_checkpoint.py": "weights convert",
}


def test_every_tool_is_a_command_under_its_old_name(monkeypatch, capsys):
    tools = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))
    assert [tool.name for tool in tools] == sorted(TOOLS)
    for tool in tools:
        assert len(tool.read_text().splitlines()) <= 10
        monkeypatch.setattr(sys, "argv", [str(tool), "--help"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(tool), run_name="__main__")
        assert capsys.readouterr().out.startswith(f"usage: bcnet {TOOLS[tool.name]} [-h]")


def test_version_and_unknown_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"bcnet {bcnet.__version__}\n"
    assert failure(["pridect"], capsys) == (2, "bcnet: error: there is no command 'pridect'; did you mean 'predict'?")
    assert failure(["anotate"], capsys)[1].endswith("did you mean 'annotate'?")
    assert failure(["data", "split"], capsys)[1].endswith("there is no command 'split'; did you mean 'occ-split'?")
    status, line = failure(["weights", "fly"], capsys)
    assert (status, line) == (2, "bcnet weights: error: there is no command 'fly'; the commands are convert")
    assert failure([], capsys) == (2, "bcnet: error: the following arguments are required: COMMAND")


@pytest.mark.parametrize("command", [["train"], ["draw", "--output", "x"], ["data", "draw", "--output", "x"]])
def test_every_command_says_its_errors_in_one_line(command, capsys, monkeypatch):
    arguments = [*command, "--config-file", "absent.yaml"]
    status, line = failure(arguments, capsys)
    assert status == 1 and line.startswith("error: ") and "absent.yaml" in line
    monkeypatch.setenv("BCNET_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(arguments)


def test_train_is_the_engines_command_line(monkeypatch):
    calls = []
    monkeypatch.setattr(command_line, "launch", lambda function, args, **keywords: calls.append(args))
    main(["train", "--config-file", "quick/bcnet_fcos.yaml", "--resume", "MODEL.DEVICE", "cpu"])
    assert calls == [("quick/bcnet_fcos.yaml", ["MODEL.DEVICE", "cpu"], False, True, [])]


def test_arguments_of_a_models_evaluation_become_config_keys(monkeypatch):
    calls = []
    monkeypatch.setattr(command_line, "launch", lambda function, args, **keywords: calls.append(args[1]))
    command = ["evaluate", "--config-file", "quick/bcnet_fcos.yaml", "--metrics", "bbox,segm"]
    command += ["--max-detections", "7", "--olac", "labels.json"]
    main([*command, "TEST.DETECTIONS_PER_IMAGE", "9", "MODEL.DEVICE", "cpu"])
    (opts,) = calls
    cfg = load_config("quick/bcnet_fcos.yaml", opts)
    assert tuple(cfg.TEST.METRICS) == ("bbox", "segm") and cfg.TEST.DETECTIONS_PER_IMAGE == 7
    assert cfg.MODEL.DEVICE == "cpu" and cfg.TEST.OLAC_LABELS == "labels.json"


def test_evaluate_a_model_then_its_results_file(trained, capsys):
    config, weights = str(trained / "config.yaml"), str(trained / "model_final.pth")
    main(["evaluate", "--config-file", config, "--weights", weights])
    (results,) = (trained / "inference").glob("*/coco_instances_results.json")
    of_model = json.loads((results.parent / "metrics.json").read_text())
    capsys.readouterr()
    output = str(trained / "metrics_of_file.json")
    annotations = str(trained / "data" / "annotations.json")
    main(["evaluate", "--annotations", annotations, "--results", str(results), "--output", output])
    assert "Wrote" in capsys.readouterr().out
    with open(output) as file:
        of_file = json.load(file)
    assert of_file["bbox"] == of_model["bbox"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one or the other"),
        (["--config-file", "a.yaml", "--results", "b.json"], "give one or the other"),
        (["--config-file", "a.yaml", "--mask-target", "amodal"], "is for a results file; set INPUT.MASK_TARGET"),
        (["--annotations", "a.json"], "--annotations and --results go together"),
        (["--annotations", "a.json", "--results", "b.json", "MODEL.DEVICE", "cpu"], "has no config: MODEL.DEVICE cpu"),
    ],
)
def test_evaluations_that_make_no_sense(arguments, message, capsys):
    status, line = failure(["evaluate", *arguments], capsys)
    assert status == 2 and message in line


def test_predict_writes_a_coco_json_and_pictures(trained, tmp_path, capsys):
    folder = trained / "data" / "images"
    (tmp_path / "broken.png").write_text("no image")
    arguments = ["predict", "--weights", str(trained / "model_final.pth"), "--input", str(folder)]
    arguments += [str(tmp_path / "broken.png"), "--output", str(tmp_path / "new" / "found.json"), "--layers"]
    arguments += ["--pictures", str(tmp_path / "pictures"), "--score-threshold", "0.1", "--max-detections", "4"]
    main(arguments)
    shown = capsys.readouterr()
    assert "8 instances in 2 images, 1 image failed" in shown.out
    assert shown.err.splitlines()[-1] == "warning: 1 of 3 images failed, see above"
    assert sorted(os.listdir(tmp_path / "pictures")) == ["0_layers.jpg", "1_layers.jpg"]
    assert os.listdir(tmp_path / "new") == ["found.json"]

    found = COCO(str(tmp_path / "new" / "found.json"))
    assert [category["name"] for category in found.loadCats(found.getCatIds())] == ["cup", "plate", "fork"]
    assert [image["file_name"] for image in found.dataset["images"]] == [str(folder / "0.png"), str(folder / "1.png")]
    model = bcnet.load(weights=trained / "model_final.pth")
    expected = model.predict(folder / "1.png", with_occluder=True, max_detections=4, score_threshold=0.1)
    annotations = found.loadAnns(found.getAnnIds(imgIds=[2]))
    assert len(annotations) == len(expected) == 4
    for annotation, score, mask in zip(annotations, expected.scores, expected.masks, strict=True):
        assert annotation["score"] == pytest.approx(float(score), abs=1e-5)
        assert np.array_equal(found.annToMask(annotation), mask.numpy())
        assert annotation["area"] == mask.sum()
        assert {"occluder_segmentation", "occluded_by", "depth"} <= annotation.keys()
    assert sorted(found.getAnnIds()) == list(range(1, 9))


def test_predictions_that_fail_say_why(trained, tmp_path, capsys, monkeypatch):
    weights = ["predict", "--weights", str(trained / "model_final.pth")]
    image = str(trained / "data" / "images" / "0.png")
    monkeypatch.setattr("bcnet.checkpoint.packaged.FOLDER", str(tmp_path))
    status, line = failure([*weights, "--input", image], capsys)
    assert status == 2 and "name what to write: --output FILE.json, --pictures FOLDER, or both" in line
    for arguments, message in (
        ([*weights, "--input", "absent/", "--output", "a.json"], "no images found for the input 'absent/'"),
        ([*weights, "--input", image, "--output", str(tmp_path)], "--output names the json file to write"),
        (["predict", "--input", image, "--output", "a.json"], "the model 'lite-detector' is not in this build"),
        ([*weights, "--input", image, "--output", "a.json", "SOLVER.BASE_LT", "1"], "'SOLVER.BASE_LT'"),
    ):
        status, line = failure(arguments, capsys)
        assert status == 1 and line.startswith("error: ") and message in line
    Image.new("RGB", (4, 4)).save(tmp_path / "a.txt", format="png")
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(SystemExit) as caught:  # not one image could be read
        main([*weights, "--input", str(tmp_path / "b.png"), "--output", str(tmp_path / "a.json")])
    assert caught.value.code == 1
    monkeypatch.setenv("BCNET_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main([*weights, "--input", "absent/", "--output", "a.json"])


def test_draw_and_predict_write_the_same_pictures(trained, tmp_path, capsys):
    image = str(trained / "data" / "images" / "0.png")
    common = ["--weights", str(trained / "model_final.pth"), "--input", image, "--score-threshold", "0.1"]
    main(
        [
            "predict",
            *common,
            "--layers",
            "--output",
            str(tmp_path / "a.json"),
            "--pictures",
            str(tmp_path / "predicted"),
        ]
    )
    main(["draw", *common, "--output", str(tmp_path / "drawn")])
    assert "1 image drawn" in capsys.readouterr().out
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert {"0_layers.jpg", "0_maps.png"} <= drawn
    assert (tmp_path / "predicted/0_layers.jpg").read_bytes() == (tmp_path / "drawn/0_layers.jpg").read_bytes()


def test_draw_takes_the_test_sets_of_the_config(trained, tmp_path, capsys):
    main(["draw", "--weights", str(trained / "model_final.pth"), "--output", str(tmp_path), "--max-images", "1"])
    assert "1 image drawn" in capsys.readouterr().out


def test_data_scenes_and_draw(tmp_path, capsys):
    scenes = ["--count", "2", "--size", "64", "--workers", "1", "--split", "val"]
    main(["data", "scenes", "--output", str(tmp_path / "set"), *scenes])
    spec = capsys.readouterr().out.strip().splitlines()[-1].removeprefix("as a data set: ")
    main(["data", "draw", "--dataset", spec, "--output", str(tmp_path / "pictures"), "--max-images", "1"])
    assert f"{spec}: 1 image drawn" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["annotate"], ["data", "annotate"]])
def test_annotate(command, trained, tmp_path, capsys):
    source, output = str(trained / "data" / "annotations.json"), str(tmp_path / "with_occluders.json")
    main([*command, "--input", source, "--output", output, "--workers", "1"])
    with open(output) as file:
        annotations = json.load(file)["annotations"]
    assert all("bg_object_segmentation" in annotation for annotation in annotations)
    assert failure(["annotate", "--input", "absent.json", "--output", output + "2"], capsys)[0] == 1


def test_info_of_the_installation(capsys):
    main(["info"])
    described = yaml.safe_load(capsys.readouterr().out)
    assert described["versions"]["bcnet"] == bcnet.__version__
    assert described["versions"]["torch"] == str(torch.__version__)
    assert described["hardware"]["cpu_cores"] == os.cpu_count()
    assert "fcos/fcos_imprv_R_50_FPN.yaml" in described["configs"]


def test_info_of_files(trained, tmp_path, capsys):
    weights = str(trained / "model_final.pth")
    torch.save({"a.b": torch.zeros(2, 3)}, tmp_path / "strange.pth")
    main(["info", "quick/bcnet_fcos.yaml", weights, str(tmp_path / "strange.pth")])
    config, model, strange = yaml.safe_load(capsys.readouterr().out).values()
    assert (config["detector"], config["backbone"], config["classes"]) == ("FCOS", "ResNet-18-FPN", 6)
    assert config["mask head"].startswith("bilayer")
    assert model["names of"] == "bcnet" and model["class names"] == ["cup", "plate", "fork"]
    assert model["iteration"] == 3 and model["resumable"] is False
    assert model["config"]["detector"] == "Faster R-CNN"
    built = build_model(small_config())
    assert model["config"]["parameters"] == sum(parameter.numel() for parameter in built.parameters())
    assert strange["names of"] == "not known" and strange["values"] == 6
    assert failure(["info", "absent.pth"], capsys) == (1, "error: checkpoint not found: 'absent.pth'")
    status, line = failure(["info", "absent.yaml"], capsys)
    assert status == 1 and "nearest that comes with the package" in line


@pytest.mark.parametrize("name", packaged_configs())
def test_every_config_can_be_described(name):
    if name.startswith(("timm/", "lite/")):
        pytest.importorskip("timm", reason="needs timm: pip install 'bcnet[backbones]'")
    assert describe.describe(name)["parameters"] > 1e6


def test_a_config_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = load_config(find_config("fcos/fcos_imprv_R_50_FPN.yaml"))
    assert load_config("fcos/fcos_imprv_R_50_FPN.yaml") == expected
    assert load_config("configs/fcos/fcos_imprv_R_50_FPN.yaml") == expected
    assert load_config("./configs/fcos/fcos_imprv_R_50_FPN.yaml") == expected
    (tmp_path / "fcos").mkdir()
    (tmp_path / "fcos" / "fcos_imprv_R_50_FPN.yaml").write_text("SEED: 5\n")
    assert load_config("fcos/fcos_imprv_R_50_FPN.yaml").SEED == 5  # a path comes first
    for absent in ("fcos/fcos_imprv_R_51_FPN.yaml", "../configs/fcos/fcos_imprv_R_50_FPN.yaml"):
        with pytest.raises(FileNotFoundError, match=r"nearest that comes with the package: 'fcos/fcos_imprv_R_"):
            load_config(absent)
