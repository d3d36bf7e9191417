"""Predictors of small untrained detectors that find something, and the comparison of what they find."""

from __future__ import annotations

import torch
from small_models import finding_detector

from bcnet.prediction import Predictor


def predictor(detector="GeneralizedRCNN", **overrides) -> Predictor:
    return Predictor.from_config(*finding_detector(detector, **overrides), ("cup", "plate", "fork")).eval()


def assert_same_detections(found, expected):
    assert found.image_size == expected.image_size
    assert found.class_names == expected.class_names
    assert torch.equal(found.classes, expected.classes)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert found.maps.keys() == expected.maps.keys()
    for name, maps in found.maps.items():
        torch.testing.assert_close(maps, expected.maps[name], rtol=1e-4, atol=1e-4)
