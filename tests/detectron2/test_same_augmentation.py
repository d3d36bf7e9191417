"""Test-time augmentation finds the same on both hosts."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import torch
from plugin_samples import FASTER_RCNN, FCOS, SIZES, both_hosts, engine_cfg, images, inputs, plugin_cfg

from bcnet.detectron2 import with_test_time_augmentation as on_detectron2
from bcnet.prediction.tta import with_test_time_augmentation

AUGMENTED = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (80, 96, 128), "TEST.AUG.MAX_SIZE", 200)


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_the_same_augmented_detections_and_masks(config_file):
    engine, plugin = both_hosts(config_file, *AUGMENTED)
    _, ours = with_test_time_augmentation(engine_cfg(config_file, *AUGMENTED), engine)
    theirs = on_detectron2(plugin_cfg(config_file, *AUGMENTED), plugin)
    theirs.batch_size = 1  # views of several sizes would be padded to the largest
    with torch.no_grad():
        outputs = theirs(inputs())
    for size, expected, output in zip(SIZES, ours.inference(images()), outputs, strict=True):
        found = output["instances"]
        expected = expected.rescaled(size)
        assert len(expected) >= 4
        torch.testing.assert_close(found.pred_boxes.tensor, expected.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
        assert torch.equal(found.pred_classes, expected.classes)
        assert (found.pred_masks != expected.masks).float().mean() < 1e-4
        assert expected.masks.any()
