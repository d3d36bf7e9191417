"""Pasting, occlusion confidences and results in numpy, against those in torch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bcnet.export.arrays import occluder_confidence, paste_windows
from bcnet.export.results import ArrayDetections
from bcnet.maps import OCCLUDEE_AMODAL, PUBLISHED_MAPS
from bcnet.occlusion import with_relations
from bcnet.ops import paste
from bcnet.structures import Detections

SIZE = (60, 80)
SPECS = (*PUBLISHED_MAPS, OCCLUDEE_AMODAL)
# Whole image, within, across each border, less than a pixel, of whole pixels, outside.
BOXES = [
    [0, 0, 80, 60],
    [10.3, 5.7, 40.2, 30.9],
    [-9.5, -3.2, 12.1, 8.8],
    [60.4, 41.6, 95.3, 70.1],
    [20.2, 20.3, 20.8, 20.9],
    [30, 10, 58, 38],
    [90, 70, 99, 80],
]


def detections(roi_scale: float = 1.0, count: int = len(BOXES)) -> Detections:
    generator = torch.Generator().manual_seed(3)
    smooth = torch.rand(count, len(SPECS), 5, 5, generator=generator)
    maps = torch.nn.functional.interpolate(smooth, size=28, mode="bilinear").unbind(dim=1)
    return Detections(
        SIZE,
        torch.tensor(BOXES)[:count],
        torch.linspace(0.9, 0.3, count),
        torch.arange(count) % 3,
        maps={spec.name: values for spec, values in zip(SPECS, maps, strict=True)},
        class_names=("cup", "plate", "fork"),
        specs=SPECS,
        roi_scale=roi_scale,
    )


def in_numpy(found: Detections) -> ArrayDetections:
    return ArrayDetections(
        found.image_size,
        found.boxes.numpy(),
        found.scores.numpy(),
        found.classes.numpy(),
        maps={name: values.numpy() for name, values in found.maps.items()},
        class_names=found.class_names,
        specs=found.specs,
        roi_scale=found.roi_scale,
    )


def test_maps_are_pasted_as_in_torch():
    found = detections()
    expected = list(paste.paste_windows(found.maps["occludee_mask"], found.boxes, SIZE))
    pasted = list(paste_windows(found.maps["occludee_mask"].numpy(), found.boxes.numpy(), SIZE))
    assert [window for window, _ in pasted] == [tuple(window) for window, _ in expected]
    for (_, values), (_, theirs) in zip(pasted, expected, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, theirs.numpy(), rtol=0, atol=1e-5)
    assert pasted[0][1].shape == SIZE and pasted[-1][1].shape == (0, 0)


@pytest.mark.parametrize("roi_scale", [1.0, 1.4])
def test_relations_are_those_of_torch(roi_scale):
    found = detections(roi_scale)
    expected = with_relations(found).occluded_by.numpy()
    assert (expected > 0).sum() > 5
    relations = in_numpy(found).with_relations().occluded_by
    np.testing.assert_allclose(relations, expected, rtol=0, atol=1e-5)
    modal = replace(found, maps={name: values for name, values in found.maps.items() if name != OCCLUDEE_AMODAL.name})
    expected = with_relations(modal).occluded_by.numpy()
    assert (expected > 0).sum() > 5 and np.abs(expected - relations).max() > 0.01
    np.testing.assert_allclose(in_numpy(modal).with_relations().occluded_by, expected, rtol=0, atol=1e-5)
    none = np.zeros((0, 28, 28), np.float32)
    assert occluder_confidence(none, none, np.zeros((0, 4), np.float32), SIZE).shape == (0, 0)


@pytest.mark.parametrize("roi_scale", [1.0, 1.4])
def test_files_are_those_of_torch(roi_scale):
    expected = with_relations(detections(roi_scale))
    found = in_numpy(expected).with_relations()
    assert found.names == expected.names and len(found) == len(expected)
    for name in ("masks", "occluder_masks"):
        assert np.array_equal(getattr(found, name), getattr(expected, name).numpy())
    assert np.array_equal(found.occluded_fraction, expected.occluded_fraction.numpy())
    names = [spec.name for spec in SPECS]
    ours, theirs = (value.to_coco(7, [4, 5, 6], names=names) for value in (found, expected))
    for our, their in zip(ours, theirs, strict=True):
        ours_in_front, theirs_in_front = our.pop("occluded_by"), their.pop("occluded_by")
        assert [number for number, _ in ours_in_front] == [number for number, _ in theirs_in_front]
        assert [value for _, value in ours_in_front] == pytest.approx([value for _, value in theirs_in_front], abs=2e-4)
        assert our == their
    assert {"depth", "occluded_fraction", "occluder_segmentation"} <= ours[0].keys()
    assert (
        json.loads(found.to_json())["detections"][1]["polygons"]
        == (json.loads(expected.to_json())["detections"][1]["polygons"])
    )
    assert repr(found) == repr(expected) and found.summary() == expected.summary()
    again = found.to_torch()
    assert torch.equal(again.boxes, expected.boxes) and again.maps.keys() == expected.maps.keys()
    torch.testing.assert_close(again.occluded_by, expected.occluded_by, rtol=0, atol=1e-5)


def test_subsets_and_other_sizes_are_those_of_torch():
    whole = with_relations(detections())
    found = in_numpy(whole).with_relations()
    for index in (slice(1, 4), [0, 2], 1, -1):
        expected = whole[index]
        subset = found[index]
        assert np.array_equal(subset.boxes, expected.boxes.numpy())
        assert np.array_equal(subset.maps["occluder_mask"], expected.maps["occluder_mask"].numpy())
        np.testing.assert_allclose(subset.occluded_by, expected.occluded_by.numpy(), atol=1e-5)
    rescaled, expected = in_numpy(whole).rescaled((37, 91)), whole.rescaled((37, 91))
    assert len(expected) == len(BOXES) - 1  # one lies outside
    assert rescaled.image_size == (37, 91) and np.array_equal(rescaled.boxes, expected.boxes.numpy())


def test_without_detections_or_maps():
    none = in_numpy(detections(count=0)).with_relations()
    assert none.to_coco(names=["occludee_mask"]) == [] and none.masks.shape == (0, *SIZE) and none.occluded_by.size == 0
    boxes = ArrayDetections(SIZE, np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    assert boxes.with_relations() is boxes and "segmentation" not in boxes.to_coco()[0]
    with pytest.raises(ValueError, match="no occludee_mask; present are: none"):
        _ = boxes.masks
    with pytest.raises(ValueError, match="no relations"):
        _ = boxes.occlusion
