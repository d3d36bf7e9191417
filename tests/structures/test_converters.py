"""The result object as other libraries' objects. Those libraries are optional."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from bcnet.structures import Detections

MAPS = ("occludee_mask", "occludee_boundary", "occluder_mask", "occluder_boundary")


def detections(maps=MAPS, names=("cup", "plate"), count=2):
    boxes = torch.tensor([[1.0, 2.0, 9.0, 10.0], [4.0, 0.0, 12.0, 8.0]])[:count]
    values = {name: torch.full((count, 4, 4), value) for name, value in zip(maps, (0.9, 0.4, 0.6, 0.7), strict=False)}
    return Detections(
        (12, 16), boxes, torch.tensor([0.9, 0.8])[:count], torch.tensor([1, 0])[:count], values, class_names=names
    )


def test_to_supervision():
    supervision = pytest.importorskip("supervision")
    found = detections()
    converted = found.to_supervision()
    assert isinstance(converted, supervision.Detections)
    assert np.array_equal(converted.xyxy, found.boxes.numpy())
    assert np.array_equal(converted.confidence, found.scores.numpy())
    assert converted.class_id.tolist() == [1, 0]
    assert converted["class_name"].tolist() == ["plate", "cup"]
    assert np.array_equal(converted.mask, found.masks.numpy())
    for key, masks in (
        ("boundary", found.boundaries),
        ("occluder_mask", found.occluder_masks),
        ("occluder_boundary", found.occluder_boundaries),
    ):
        assert np.array_equal(converted[key], masks.numpy())
    # It is one of theirs in use: what supervision selects, it selects everywhere.
    assert converted[converted.class_id == 0]["occluder_mask"].shape == (1, 12, 16)
    picture = supervision.MaskAnnotator().annotate(np.zeros((12, 16, 3), np.uint8), converted)
    assert picture.any()


@pytest.mark.parametrize("count", [0, 1])
def test_to_supervision_without_masks_or_names(count):
    pytest.importorskip("supervision")
    converted = detections(maps=(), names=(), count=count).to_supervision()
    assert len(converted) == count
    assert converted.mask is None and converted.data == {}
    assert len(detections(count=count).to_supervision()) == count


def test_to_detectron2():
    structures = pytest.importorskip("detectron2.structures")
    found = detections()
    instances = found.to_detectron2()
    assert isinstance(instances, structures.Instances)
    assert instances.image_size == (12, 16)
    assert torch.equal(instances.pred_boxes.tensor, found.boxes)
    assert torch.equal(instances.scores, found.scores)
    assert torch.equal(instances.pred_classes, found.classes)
    for field, masks in (
        ("pred_masks", found.masks),
        ("pred_boundaries", found.boundaries),
        ("pred_occluder_masks", found.occluder_masks),
        ("pred_occluder_boundaries", found.occluder_boundaries),
    ):
        assert torch.equal(instances.get(field), masks)
    assert not detections(maps=()).to_detectron2().has("pred_masks")


@pytest.mark.parametrize(
    ("library", "message"), [("supervision", r"pip install 'bcnet[supervision]'"), ("detectron2", "INSTALL.md")]
)
def test_without_the_library_the_error_says_what_to_do(library, message):
    # A module name that is None in sys.modules cannot be imported.
    code = (
        f"import sys; sys.modules[{library!r}] = None; import torch; from bcnet.structures import Detections; "
        f"Detections((4, 4), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()).to_{library}()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "ImportError" in run.stderr and message in run.stderr
