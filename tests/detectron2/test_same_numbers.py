"""A model of the engine and its conversion give the same numbers in detectron2."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import torch
from detectron2.utils.events import EventStorage
from plugin_samples import FASTER_RCNN, FCOS, SIZES, assert_same_losses, both_hosts, images, inputs, targets

from bcnet.checkpoint import to_detectron2

BOTTLENECK = (
    *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256, "MODEL.RESNETS.NORM", "FrozenBN"),
    *("MODEL.RESNETS.STRIDE_IN_1X1", True),
)
PLAIN = ("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead")
PER_CLASS = ("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", False)
LAYERS = ("MODEL.BILAYER.OUTPUT_LAYERS", True)
# Nothing is drawn: every anchor, proposal and RoI takes part.
EVERYTHING = (
    *("MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO", -1.0, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 100000),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 100000),
)


SIDE_BRANCH = ("MODEL.ROI_MASK_HEAD.NAME", "SideBranchMaskHead")
HEADS = {"R-18": (), "R-50": BOTTLENECK, "per class": PER_CLASS, "plain head": PLAIN, "side branch": SIDE_BRANCH}


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
@pytest.mark.parametrize("opts", HEADS.values(), ids=HEADS)
def test_the_same_detections_and_masks(config_file, opts):
    engine, plugin = both_hosts(config_file, *opts)
    with torch.no_grad():
        outputs = plugin(inputs())
    for size, expected, output in zip(SIZES, engine.inference(images()), outputs, strict=True):
        # Into an image of the same size: both hosts drop boxes that are empty there.
        expected, found = expected.rescaled(size), output["instances"]
        assert len(expected) >= 4
        torch.testing.assert_close(found.pred_boxes.tensor, expected.boxes, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
        assert torch.equal(found.pred_classes, expected.classes)
        assert found.pred_masks.dtype == torch.bool and found.pred_masks.shape == (len(expected), *size)
        assert torch.equal(found.pred_masks, expected.masks)
        assert expected.masks.any()


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_the_same_probabilities_of_all_four_maps_in_the_roi_frame(config_file):
    engine, plugin = both_hosts(config_file, *LAYERS)
    with torch.no_grad():
        outputs = plugin.inference(inputs(), do_postprocess=False)
    for expected, found in zip(engine.inference(images(), with_occluder=True), outputs, strict=True):
        assert found.pred_masks.shape == (len(expected), 1, 28, 28)
        for maps, field in (
            (found.pred_masks[:, 0], "occludee_mask"),
            (found.pred_boundaries.tensor, "occludee_boundary"),
            (found.pred_occluder_masks.tensor, "occluder_mask"),
            (found.pred_occluder_boundaries.tensor, "occluder_boundary"),
        ):
            torch.testing.assert_close(maps, getattr(expected, field), rtol=0, atol=1e-4)
            assert maps.std() > 0.05


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_on_request_the_layers_are_pasted_into_the_image(config_file):
    engine, plugin = both_hosts(config_file, *LAYERS)
    sizes = [(150, 200), (55, 45)]  # not those of the network's input
    batch = [{**sample, "height": h, "width": w} for sample, (h, w) in zip(inputs(), sizes, strict=True)]
    with torch.no_grad():
        outputs = plugin(batch)
    for size, expected, output in zip(sizes, engine.inference(images(), with_occluder=True), outputs, strict=True):
        expected, found = expected.rescaled(size), output["instances"]
        assert torch.equal(found.pred_masks, expected.masks)
        assert torch.equal(found.pred_boundaries, expected.boundaries)
        assert torch.equal(found.pred_occluder_masks, expected.occluder_masks)
        assert torch.equal(found.pred_occluder_boundaries, expected.occluder_boundaries)
        assert found.pred_occluder_masks.any()


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
@pytest.mark.parametrize("opts", HEADS.values(), ids=HEADS)
def test_the_same_losses_on_the_same_targets(config_file, opts):
    engine, plugin = both_hosts(config_file, *EVERYTHING, *opts)
    assert all(loss > 0 for loss in assert_same_losses(engine, plugin).values())


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_the_same_gradients(config_file):
    engine, plugin = both_hosts(config_file, *EVERYTHING)
    sum(engine.train()(images(), targets()).values()).backward()
    with EventStorage():
        sum(plugin.train()(inputs(objects=3)).values()).backward()
    expected = to_detectron2({name: p.grad for name, p in engine.named_parameters() if p.grad is not None})
    found = {name: p.grad for name, p in plugin.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6, name
