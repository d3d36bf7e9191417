"""The mask head among detectron2's parts: RoI heads, backbones, configs, bad settings."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, Backbone, SimpleFeaturePyramid, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures import BitMasks, Boxes, Instances, ROIMasks
from detectron2.utils.events import EventStorage
from plugin_samples import FASTER_RCNN, inputs, plugin_cfg, targets, to_instances

from bcnet import bilayer
from bcnet.detectron2 import (
    BCNetTrainer,
    BilayerMaskHead,
    PlainMaskHead,
    SideBranchMaskHead,
    add_bcnet_config,
    paste_layers,
)
from bcnet.maps import OCCLUDEE_AMODAL, PUBLISHED_MAPS

MASK_LOSSES = {"loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"}


def head(**changes):
    torch.manual_seed(0)
    keywords = {"num_mask_classes": 1, **changes}
    return BilayerMaskHead(ShapeSpec(channels=8, height=14, width=14), **keywords)


def rois(size=(96, 128), objects=3):
    """Foreground proposals: the ground-truth boxes themselves, and once more in reverse order."""
    instances = to_instances(targets(objects)[0], size)
    instances.proposal_boxes = instances.gt_boxes.clone()
    return Instances.cat([instances, instances[torch.arange(objects).flip(0)]])


def test_the_head_is_registered_and_has_the_engines_parameter_names():
    assert ROI_MASK_HEAD_REGISTRY.get("BilayerMaskHead") is BilayerMaskHead
    assert issubclass(BilayerMaskHead, BaseMaskRCNNHead)
    assert head().state_dict().keys() == bilayer.BilayerMaskHead(8).state_dict().keys()


def test_losses_are_the_engines_on_the_same_rois():
    module, instances = head(negative_ratio=-1.0).train(), rois()
    x = torch.randn(len(instances), 8, 14, 14)
    found = module(x, [instances])
    reference = head().train()
    target = targets()[0]
    layers = bilayer.crop_layers(
        target.masks,
        instances.proposal_boxes.tensor,
        torch.tensor([0, 1, 2, 2, 1, 0]),
        28,
    )
    logits = bilayer.select_class(bilayer.BilayerMaskHead.forward(reference, x), instances.gt_classes)
    expected = reference.losses(logits, layers, negative_ratio=-1.0)
    assert found.keys() == expected.keys() == MASK_LOSSES
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_weights_and_parts_of_the_loss_can_be_set():
    module = head(use_boundary=False, loss_weights={"occludee_mask": 0.0}).train()
    losses = module(torch.randn(6, 8, 14, 14), [rois()])
    assert losses.keys() == {"loss_mask", "loss_occluder_mask"}
    assert losses["loss_mask"] == 0 and losses["loss_occluder_mask"] > 0


@pytest.mark.parametrize("classes", [1, 6])
def test_an_image_without_ground_truth_and_a_batch_without_rois(classes):
    module = head(num_mask_classes=classes).train()
    empty = Instances((96, 128), proposal_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
    alone = module(torch.randn(6, 8, 14, 14), [empty, rois()])
    assert alone.keys() == MASK_LOSSES and all(torch.isfinite(loss) for loss in alone.values())
    losses = module(torch.zeros(0, 8, 14, 14), [empty, empty])
    assert losses.keys() == MASK_LOSSES
    sum(losses.values()).backward()
    assert all(loss == 0 for loss in losses.values()) and all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("classes", [1, 6])
def test_inference_takes_the_mask_of_the_predicted_class(classes):
    module = head(num_mask_classes=classes).eval()
    x = torch.randn(3, 8, 14, 14)
    detected = [
        Instances((96, 128), pred_classes=torch.tensor([5, 0])),
        Instances((9, 9), pred_classes=torch.tensor([3])),
    ]
    with torch.no_grad():
        found, logits = module(x, detected), module.layers(x)
    assert [set(i.get_fields()) for i in found] == [{"pred_classes", "pred_masks"}] * 2
    picked = torch.cat([i.pred_masks for i in found])
    channels = [5, 0, 3] if classes == 6 else [0, 0, 0]
    assert torch.equal(picked, torch.stack([logits[i, c] for i, c in enumerate(channels)])[:, None].sigmoid())


def test_without_detections_the_fields_are_there_and_empty():
    module = head(output_layers=True).eval()
    nothing = Instances((96, 128), pred_classes=torch.zeros(0, dtype=torch.int64), pred_boxes=Boxes(torch.zeros(0, 4)))
    (found,) = module(torch.zeros(0, 8, 14, 14), [nothing])
    assert found.pred_masks.shape == (0, 1, 28, 28)
    assert paste_layers(found).pred_occluder_masks.shape == (0, 96, 128)


def test_amodal_masks_are_learned_from_their_own_targets_and_predicted():
    maps = (*PUBLISHED_MAPS, OCCLUDEE_AMODAL)
    module, instances = head(maps=maps).train(), rois()
    x = torch.randn(len(instances), 8, 14, 14)
    with pytest.raises(
        ValueError, match=r"learns amodal masks and an image of the batch has no gt_amodal_masks: BCNetDatasetM"
    ):
        module(x, [instances])
    whole = instances.gt_masks.tensor | instances.gt_occluder_masks.tensor
    instances.gt_amodal_masks = BitMasks(whole)
    losses = module(x, [instances])
    assert losses.keys() == MASK_LOSSES | {"loss_amodal"}
    logits = bilayer.BilayerMaskHead.forward(head(maps=maps).train(), x)["occludee_amodal"][:, 0]
    target = BitMasks(whole).crop_and_resize(instances.proposal_boxes.tensor, 28).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(losses["loss_amodal"], expected)
    # An inference of masks alone has them, and pastes them into the image.
    detected = Instances((96, 128), pred_classes=torch.tensor([5]), pred_boxes=Boxes(torch.tensor([[2.0, 3, 40, 50]])))
    with torch.no_grad():
        (found,) = module.eval()(x[:1], [detected])
    assert set(found.get_fields()) == {"pred_classes", "pred_boxes", "pred_masks", "pred_amodal_masks"}
    assert paste_layers(found).pred_amodal_masks.shape == (1, 96, 128)


def test_the_head_with_a_side_branch_has_the_losses_and_maps_of_the_engines():
    torch.manual_seed(0)
    shape = ShapeSpec(channels=8, height=14, width=14)
    module = SideBranchMaskHead(shape, amodal=True, negative_ratio=-1.0, output_layers=True).train()
    assert ROI_MASK_HEAD_REGISTRY.get("SideBranchMaskHead") is SideBranchMaskHead
    assert issubclass(SideBranchMaskHead, BaseMaskRCNNHead)
    maps = (*PUBLISHED_MAPS, OCCLUDEE_AMODAL)
    assert module.state_dict().keys() == bilayer.SideBranchMaskHead(8, maps=maps).state_dict().keys()
    x, instances = torch.randn(6, 8, 14, 14), rois()
    instances.gt_amodal_masks = BitMasks(instances.gt_masks.tensor | instances.gt_occluder_masks.tensor)
    found = module(x, [instances])
    assert found.keys() == {"loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_amodal"}
    crops = bilayer.crop_layers(
        targets()[0].masks, instances.proposal_boxes.tensor, torch.tensor([0, 1, 2, 2, 1, 0]), 28
    )
    logits = bilayer.select_class(bilayer.SideBranchMaskHead.forward(module, x), instances.gt_classes)
    expected = bilayer.mask_losses(
        module.maps[:3], logits, bilayer.map_targets(module.maps[:3], crops), crops, negative_ratio=-1.0
    )
    assert len(expected) == 3
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss)
    instances.pred_classes = instances.gt_classes
    with torch.no_grad():
        (predicted,) = module.eval()(x, [instances])
        masks = module.layers(x)
    fields = {name for name in predicted.get_fields() if name.startswith("pred_")}
    assert fields == {"pred_classes", "pred_masks", "pred_boundaries", "pred_occluder_masks", "pred_amodal_masks"}
    assert torch.equal(predicted.pred_masks, masks.sigmoid())


@pytest.mark.parametrize("head_class", [BilayerMaskHead, SideBranchMaskHead])
def test_a_mask_rcnn_of_the_zoo_initialises_the_visible_masks(head_class):
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    add_bcnet_config(cfg)
    theirs = ROI_MASK_HEAD_REGISTRY.get("MaskRCNNConvUpsampleHead")(cfg, ShapeSpec(channels=256, height=14, width=14))
    ours = head_class(ShapeSpec(channels=256, height=14, width=14), num_mask_classes=80)
    _, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    layer = ours.occludee_layer if head_class is BilayerMaskHead else ours.shared_layer
    assert unexpected == []
    assert torch.equal(layer.convs[3].weight, theirs.mask_fcn4.weight)
    assert torch.equal(ours.occludee_mask.predictor.weight, theirs.predictor.weight)


def test_pasting_touches_only_maps_of_the_roi_frame():
    masks = torch.ones(1, 28, 28)
    boxes = Boxes(torch.tensor([[2.0, 3.0, 6.0, 8.0]]))
    instances = Instances((10, 12), pred_boxes=boxes, pred_masks=masks[:, None], pred_occluder_masks=ROIMasks(masks))
    pasted = paste_layers(instances)
    assert pasted.pred_masks.shape == (1, 1, 28, 28) and not pasted.has("pred_boundaries")
    expected = torch.zeros(10, 12, dtype=torch.bool)
    expected[3:8, 2:6] = True
    assert torch.equal(pasted.pred_occluder_masks[0], expected)
    assert torch.equal(paste_layers(pasted).pred_occluder_masks[0], expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("NORM", "GN", r"MODEL.ROI_MASK_HEAD.NORM must be '', got 'GN'"),
        ("CONV_DIM", 16, r"CONV_DIM must be 32 .* got 16"),
        ("NUM_CONV", 1, r"got num_conv=1"),
        ("ROI_SCALE", 1.5, r"MODEL.ROI_MASK_HEAD.ROI_SCALE must be 1.0 in the plugin, got 1.5"),
    ],
)
def test_settings_that_the_head_cannot_have(key, value, message):
    with pytest.raises(ValueError, match=message):
        build_model(plugin_cfg(FASTER_RCNN, f"MODEL.ROI_MASK_HEAD.{key}", value))


@pytest.mark.parametrize("own_mapper", [False, True])
def test_cascade_rcnn_trains_and_detects_with_the_bilayer_head(own_mapper):
    torch.manual_seed(0)
    model = build_model(
        plugin_cfg(
            FASTER_RCNN, "MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True
        )
    )
    batch = inputs(objects=3)
    if own_mapper:
        for sample in batch:
            sample["instances"].remove("gt_occluder_masks")
    with EventStorage():
        losses = model(batch)
    assert losses.keys() >= MASK_LOSSES | {"loss_cls_stage2", "loss_rpn_cls"}
    assert losses["loss_occluder_mask"] > 0
    sum(losses.values()).backward()
    model.eval()
    model.roi_heads.box_predictor[-1].test_score_thresh = 0.0
    with torch.no_grad():
        (first, _) = model(inputs())
    assert len(first["instances"]) > 0
    assert first["instances"].pred_masks.shape[1:] == (96, 128)


def test_a_mask_rcnn_config_of_the_zoo_turns_into_a_bilayer_one():
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    add_bcnet_config(cfg)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "BilayerMaskHead"
    cfg.MODEL.DEVICE = "cpu"
    module = build_model(cfg).roi_heads.mask_head
    # detectron2's default is one mask per class.
    assert type(module) is BilayerMaskHead and module.occludee_mask.predictor.out_channels == 80


class PlainBackbone(Backbone):
    """What ViTDet's pyramid builds on: one map of stride 16 (detectron2's ViT itself needs timm)."""

    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 16, kernel_size=16, stride=16)
        self._out_features, self._out_feature_channels = ["last_feat"], {"last_feat": 16}
        self._out_feature_strides = {"last_feat": 16}

    def forward(self, x):
        return {"last_feat": self.patches(x)}


def simple_feature_pyramid():
    return SimpleFeaturePyramid(
        PlainBackbone(), "last_feat", 32, (4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool(), norm="LN", square_pad=128
    )


def test_a_lazy_config_with_the_pyramid_of_vitdet_takes_the_head():
    torch.manual_seed(0)
    model = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py").model
    model.backbone = simple_feature_pyramid()
    model.proposal_generator.head.in_channels = 32
    model.roi_heads.num_classes = 6
    model.roi_heads.box_head.input_shape = ShapeSpec(channels=32, width=7, height=7)
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    model.roi_heads.mask_head = LazyCall(BilayerMaskHead)(input_shape=ShapeSpec(channels=32, width=14, height=14))
    model = instantiate(model)
    with EventStorage():
        losses = model.train()(inputs(objects=2))
    assert losses.keys() >= MASK_LOSSES
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.roi_heads.mask_head.parameters())
    with torch.no_grad():
        (first, _) = model.eval()(inputs())
    assert first["instances"].pred_masks.shape[1:] == (96, 128)


def test_masks_are_drawn_into_the_event_storage_every_vis_period():
    module = head(vis_period=2).train()
    x = torch.randn(6, 8, 14, 14)
    with EventStorage() as storage:
        module(x, [rois()])
        assert len(storage._vis_data) == 4 * 6  # maps and RoIs
        name, drawing, iteration = storage._vis_data[0]
        assert name == "occludee_mask, prediction and target (0)"
        assert drawing.shape == (3, 28, 2 * 28) and iteration == 0
        storage.iter = 1
        module(x, [rois()])
        assert len(storage._vis_data) == 4 * 6


def test_the_plain_head_has_the_losses_and_boundaries_of_the_engines():
    torch.manual_seed(0)
    module = PlainMaskHead(ShapeSpec(channels=8, height=14, width=14), channels=8, use_boundary=True).train()
    x, instances = torch.randn(6, 8, 14, 14), rois()
    found = module(x, [instances])
    crops = bilayer.crop_layers(
        targets()[0].masks, instances.proposal_boxes.tensor, torch.tensor([0, 1, 2, 2, 1, 0]), 28
    )
    logits = bilayer.select_class(bilayer.PlainMaskHead.forward(module, x), instances.gt_classes)
    expected = module.losses(logits, crops)
    assert found.keys() == expected.keys() == {"loss_mask", "loss_mask_boundary"}
    assert all(torch.equal(found[name], expected[name]) for name in found)
    instances.pred_classes, module.output_layers = instances.gt_classes, True
    (predicted,) = module.eval()(x, [instances])
    assert torch.equal(predicted.pred_boundaries.tensor, logits["occludee_boundary"].sigmoid())


def test_the_plain_head_takes_the_weights_of_a_mask_rcnn_of_the_zoo():
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    add_bcnet_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    theirs = ROI_MASK_HEAD_REGISTRY.get("MaskRCNNConvUpsampleHead")(cfg, ShapeSpec(channels=256, height=14, width=14))
    cfg.MODEL.ROI_MASK_HEAD.BOUNDARY = True
    with pytest.raises(ValueError, match=r"detectron2's own head .* set MODEL\.ROI_MASK_HEAD\.NAME to 'PlainMaskHead'"):
        BCNetTrainer.build_optimizer(cfg, theirs)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "PlainMaskHead"
    ours = PlainMaskHead(cfg, ShapeSpec(channels=256, height=14, width=14))
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert unexpected == [] and {key.split(".")[0] for key in missing} == {"boundary"}
    x = torch.randn(2, 256, 14, 14)
    torch.testing.assert_close(ours.layers(x), theirs.layers(x), rtol=1e-5, atol=1e-6)
