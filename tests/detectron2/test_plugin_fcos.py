"""FCOS as a meta-architecture."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import torch
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, GeneralizedRCNNWithTTA, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from plugin_samples import FASTER_RCNN, FCOS, both_hosts, images, inputs, plugin_cfg

from bcnet.detectron2 import BCNetFCOS, BCNetFCOSWithTTA, detections_to_instances, with_test_time_augmentation

LOSSES = {"loss_cls", "loss_box_reg", "loss_centerness"}
MASK_LOSSES = {"loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"}
AUGMENTED = ("TEST.AUG.MIN_SIZES", (80, 96), "TEST.AUG.MAX_SIZE", 200)


def test_names_that_do_not_collide():
    assert META_ARCH_REGISTRY.get("BCNetFCOS") is BCNetFCOS
    assert "build_bcnet_fcos_resnet_fpn_backbone" in BACKBONE_REGISTRY


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_every_number_of_objects_trains(objects):
    torch.manual_seed(0)
    model = build_model(plugin_cfg(FCOS)).train()
    with EventStorage():
        losses = model(inputs(objects=objects))
    assert losses.keys() == LOSSES | MASK_LOSSES
    assert all(torch.isfinite(loss) and loss.requires_grad for loss in losses.values())
    if objects < 2:
        assert losses["loss_occluder_mask"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.mask_head.parameters())


def test_masks_train_without_occluders_from_the_mapper():
    torch.manual_seed(0)
    model = build_model(plugin_cfg(FCOS, "MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO", -1.0)).train()
    batch = inputs(objects=2)
    with EventStorage():
        provided = model(batch)
        for sample in batch:
            # The second object lies on the first; as neighbours both occlude each other.
            sample["instances"].remove("gt_occluder_masks")
        derived = model(batch)
    assert derived["loss_occluder_mask"] > 0 and torch.isfinite(derived["loss_occluder_mask"])
    torch.testing.assert_close(derived["loss_mask"], provided["loss_mask"])


def test_boxes_alone():
    model = build_model(plugin_cfg(FCOS, "MODEL.MASK_ON", False))
    with EventStorage():
        assert model.train()(inputs(objects=2)).keys() == LOSSES
    with torch.no_grad():
        (first, _) = model.eval()(inputs())
    assert not first["instances"].has("pred_masks")


def test_masks_of_given_boxes():
    _, plugin = both_hosts(FCOS)
    boxes = Boxes(torch.tensor([[8.0, 6, 52, 46]]))
    given = [Instances((96, 128), pred_boxes=boxes, pred_classes=torch.tensor([2])), Instances((110, 90))]
    given[1].pred_boxes, given[1].pred_classes = Boxes(torch.zeros(0, 4)), torch.zeros(0, dtype=torch.int64)
    first, second = plugin.inference(inputs(), given, do_postprocess=False)
    assert first.pred_masks.shape == (1, 1, 28, 28) and len(second) == 0
    assert torch.equal(first.pred_boxes.tensor, boxes.tensor)


@pytest.mark.parametrize("config_file", [FASTER_RCNN, FCOS])
def test_test_time_augmentation(config_file):
    _, plugin = both_hosts(config_file, *AUGMENTED)
    model = with_test_time_augmentation(plugin_cfg(config_file, *AUGMENTED), plugin)
    assert type(model) is (BCNetFCOSWithTTA if config_file == FCOS else GeneralizedRCNNWithTTA)
    with torch.no_grad():
        first, second = model(inputs())
    assert len(first["instances"]) > 0
    assert first["instances"].pred_masks.shape == (len(first["instances"]), 96, 128)
    assert second["instances"].pred_masks.shape[1:] == (110, 90)
    assert first["instances"].scores.diff().max() <= 0
    if config_file == FCOS:
        assert plugin.mask_on  # as it was


def test_augmentation_by_a_flip_alone_finds_what_lies_mirrored():
    # Without another size and with every suppressed duplicate, the result is symmetric to the mirrored image's.
    opts = ("TEST.AUG.MIN_SIZES", (96,), "TEST.AUG.MAX_SIZE", 128, "TEST.DETECTIONS_PER_IMAGE", 5)
    _, plugin = both_hosts(FCOS, *opts)
    model = with_test_time_augmentation(plugin_cfg(FCOS, *opts), plugin)
    (image, _) = images()
    sample = {"height": 96, "width": 128}
    with torch.no_grad():
        (seen,), (mirrored,) = model([{**sample, "image": image}]), model([{**sample, "image": image.flip(2)}])
    boxes, other = seen["instances"].pred_boxes.tensor, mirrored["instances"].pred_boxes.tensor
    torch.testing.assert_close(other, torch.stack([128 - boxes[:, 2], boxes[:, 1], 128 - boxes[:, 0], boxes[:, 3]], 1))


@pytest.mark.parametrize("with_occluder", [False, True])
def test_the_engines_detections_become_instances(with_occluder):
    engine, plugin = both_hosts(FCOS, "MODEL.BILAYER.OUTPUT_LAYERS", with_occluder)
    with torch.no_grad():
        outputs = plugin(inputs())
    for detections, output in zip(engine.inference(images(), with_occluder=with_occluder), outputs, strict=True):
        converted = detections_to_instances(detections.rescaled(detections.image_size))
        expected = output["instances"]
        assert converted.get_fields().keys() == expected.get_fields().keys()
        assert converted.image_size == expected.image_size
        assert torch.equal(converted.pred_masks, expected.pred_masks)
        torch.testing.assert_close(converted.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-4)
