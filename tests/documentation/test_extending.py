"""docs/extending.md: its files and its commands, from training to pictures."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from example_commands import ROOT, run_shell
from PIL import Image

from bcnet.checkpoint import read_checkpoint

PAGE = ROOT / "docs/extending.md"
FILES = ROOT / "docs/extending"
BLOCK = r"^```{language}\n(.*?)^```$"


def write_numbered(folder, count):
    """A data set in the reader's format: two rectangles in each image, the second in front."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        numbers = np.zeros((48, 64), dtype=np.uint8)
        numbers[6:30, 6:34] = 1
        numbers[14:40, 20 + index : 52 + index] = 2
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        for number in (1, 2):
            pixels[numbers == number] = rng.integers(100, 255, 3)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        Image.fromarray(numbers).save(folder / "masks" / f"{index}.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder in which the page's commands have run."""
    folder = tmp_path_factory.mktemp("extending")
    for file in FILES.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    for split, count in (("train", 4), ("val", 2)):
        write_numbered(folder / "data" / split, count)
    (commands,) = re.findall(BLOCK.format(language="bash"), PAGE.read_text(), re.MULTILINE | re.DOTALL)
    run_shell(commands, folder)
    return folder


def test_the_page_has_every_file():
    page = PAGE.read_text()
    assert {file.name for file in FILES.iterdir() if file.is_file()} == set(
        re.findall(r'^--8<-- "docs/extending/(.*)"$', page, re.MULTILINE)
    )


def test_it_trains_with_the_backbone_the_head_and_the_reader(finished):
    losses = json.loads((finished / "output/extended/metrics.json").read_text().splitlines()[0])
    assert losses["loss_mask_core"] > 0 and losses["loss_overlap"] > 0 and losses["loss_occluder_mask"] > 0
    content = read_checkpoint(str(finished / "output/extended/model_final.pth"))
    assert content["class_names"] in (("object",), ["object"])
    names = content["model"].keys()
    assert {"backbone.trunk.features.0.0.weight", "mask_branch.head.occludee_core.predictor.weight"} <= names
    assert not any(name.startswith("backbone.resnet.") for name in names)


def test_it_evaluates_with_the_metric(finished):
    (metrics,) = (finished / "output/extended/inference").glob("*/metrics.json")
    found = json.loads(metrics.read_text())
    assert found["recall_by_size"].keys() == {"small", "large"} and "segm" not in found
    assert (found["images"], found["annotations"]) == (2, 4)
    assert all(0 <= value <= 1 for value in found["recall_by_size"].values())


def test_it_predicts_and_draws_the_new_map(finished):
    annotations = json.loads((finished / "found.json").read_text())["annotations"]
    assert annotations and all({"segmentation", "core"} <= annotation.keys() for annotation in annotations)
    pictures = {path.name for path in (finished / "pictures").iterdir()}
    assert {"0_layers.jpg", "0_maps.png", "1_layers.jpg"} <= pictures


# After the page's example: the map is there, and it is one more column of the heat maps.
CHECK = """
from dataclasses import replace
import numpy as np
from bcnet.visualization import draw_heat_maps
assert len(detections) and detections.maps["occludee_core"].shape[1:] == (28, 28)
published = {name: values for name, values in detections.maps.items() if name != "occludee_core"}
image = np.zeros((48, 64, 3), dtype=np.uint8)
with_core, without = (draw_heat_maps(image, d)[0] for d in (detections, replace(detections, maps=published)))
assert with_core.shape[1] > without.shape[1]
"""


def test_in_python_an_import_is_enough(finished):
    blocks = re.findall(BLOCK.format(language="python"), PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (example,) = (block for block in blocks if "bcnet.load" in block)
    # As Python itself does for a script.
    (finished / "in_python.py").write_text(f"import sys\nsys.path.insert(0, '')\n{example}{CHECK}")
    run_shell("python in_python.py", finished)


def test_without_the_imports_the_names_are_unknown(finished):
    with pytest.raises(AssertionError, match=r"(?s)unknown config key 'MODEL\.TRUNK.*--import MODULE"):
        run_shell(
            "bcnet predict --weights output/extended/model_final.pth --input data/val/images --output x.json", finished
        )
    assert not (finished / "x.json").exists()
