import pytest
import torch
from mask_layers import two_layers
from torchvision.ops import roi_align

from bcnet.config import get_cfg
from bcnet.modeling import build_model
from bcnet.modeling.anchors import AnchorGenerator
from bcnet.modeling.backbone import ResNetFPN, ResNetFPNWithP7, build_resnet
from bcnet.modeling.pooler import RoIPooler
from bcnet.structures import Targets

HEADS = ("BilayerMaskHead", "MaskRCNNConvUpsampleHead")
DETECTORS = ("GeneralizedRCNN", "BCNetFCOS")


def small_cfg(meta_architecture, head="BilayerMaskHead", **roi_mask_head):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.2
    cfg.MODEL.FCOS.NORM_GROUPS = 4
    cfg.MODEL.FCOS.SCORE_THRESH_TEST = 0.005
    if meta_architecture == "BCNetFCOS":
        cfg.MODEL.BACKBONE.NAME = "build_bcnet_fcos_resnet_fpn_backbone"
        cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.ROI_MASK_HEAD.NAME = head
    for key, value in roi_mask_head.items():
        cfg.MODEL.ROI_MASK_HEAD[key] = value
    return cfg


def targets(height, width, objects):
    occludee = torch.zeros(objects, height, width, dtype=torch.bool)
    boxes = []
    for i in range(objects):
        x, y = 10 + 12 * i, 8 + 9 * i
        occludee[i, y : y + 30, x : x + 34] = True
        boxes.append([x, y, x + 34, y + 30])
    occluder = torch.zeros_like(occludee)
    if objects > 1:
        occluder[0] = occludee[1]
        occluder[0, :, 44:] = False
    classes = torch.arange(objects) % 3
    return Targets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        classes,
        two_layers(occludee, occluder),
    )


def images():
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 256, (3, 70, 100), generator=generator, dtype=torch.uint8),
        torch.randint(0, 256, (3, 90, 64), generator=generator, dtype=torch.uint8),
    ]


@pytest.mark.parametrize("meta_architecture", DETECTORS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("agnostic", [True, False])
def test_every_parameter_learns_and_every_loss_has_its_name(meta_architecture, head, agnostic):
    torch.manual_seed(0)
    model = build_model(small_cfg(meta_architecture, head, CLS_AGNOSTIC_MASK=agnostic)).train()
    losses = model(images(), [targets(70, 100, 3), targets(90, 64, 1)])
    detector = {
        "GeneralizedRCNN": {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"},
        "BCNetFCOS": {"loss_cls", "loss_box_reg", "loss_centerness"},
    }[meta_architecture]
    bilayer = {"loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"}
    assert set(losses) == detector | {"loss_mask"} | (bilayer if head == "BilayerMaskHead" else set())
    sum(losses.values()).backward()
    frozen = ("resnet.conv1", "resnet.layer1")
    missing = [n for n, p in model.named_parameters() if p.grad is None and not any(f in n for f in frozen)]
    assert missing == []


@pytest.mark.parametrize("meta_architecture", DETECTORS)
@pytest.mark.parametrize("objects", [0, 1])
def test_images_with_one_object_or_none_train(meta_architecture, objects):
    torch.manual_seed(0)
    model = build_model(small_cfg(meta_architecture)).train()
    losses = model(images(), [targets(70, 100, objects), targets(90, 64, objects)])
    assert all(torch.isfinite(loss) and loss.requires_grad for loss in losses.values())
    assert losses["loss_occluder_mask"].item() == 0
    if objects == 0:
        assert losses["loss_mask"].item() == 0
    sum(losses.values()).backward()


@pytest.mark.parametrize("meta_architecture", DETECTORS)
def test_batched_inference_equals_single(meta_architecture):
    torch.manual_seed(0)
    model = build_model(small_cfg(meta_architecture)).eval()
    head = model.mask_branch.head
    for layer in (head.occluder_layer, head.occludee_layer):
        # Untrained features give affinities of 1e5, whose softmax turns rounding into another answer.
        layer.gcn.query.weight.data *= 1e-4
    # One padded size for all: what a smaller image sees beyond its edge differs otherwise.
    batch = [image[:, :64, :64] for image in images()]
    together = model.inference(batch, with_occluder=True)
    for image, found in zip(batch, together, strict=True):
        (alone,) = model.inference([image], with_occluder=True)
        assert len(found) > 0
        torch.testing.assert_close(found.boxes, alone.boxes, rtol=1e-4, atol=1e-3)
        assert torch.equal(found.classes, alone.classes)
        for name, maps in found.maps.items():
            torch.testing.assert_close(maps, alone.maps[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("meta_architecture", DETECTORS)
def test_detections_lie_in_the_image_and_carry_what_was_asked_for(meta_architecture):
    torch.manual_seed(0)
    model = build_model(small_cfg(meta_architecture)).train()
    masks_only = model.inference(images())
    both = model.inference(images(), with_occluder=True)
    assert model.training  # inference leaves the mode as it was
    for image, found, full in zip(images(), masks_only, both, strict=True):
        assert found.image_size == tuple(image.shape[-2:])
        assert (found.boxes[:, 2] <= image.shape[-1]).all() and (found.boxes[:, 3] <= image.shape[-2]).all()
        assert (found.scores.diff() <= 0).all()
        assert list(found.maps) == ["occludee_mask"] and len(full.maps) == 4
        torch.testing.assert_close(found.occludee_mask, full.occludee_mask)


def test_training_without_targets_is_refused():
    model = build_model(small_cfg("BCNetFCOS")).train()
    with pytest.raises(ValueError, match="one Targets per image, got None for 2 images"):
        model(images())


def test_the_bilayer_head_needs_the_pooled_features_channels():
    with pytest.raises(ValueError, match=r"CONV_DIM must be 16.*got 32"):
        build_model(small_cfg("BCNetFCOS", CONV_DIM=32))


def test_without_masks_there_is_no_mask_branch():
    cfg = small_cfg("BCNetFCOS")
    cfg.MODEL.MASK_ON = False
    model = build_model(cfg)
    assert set(model.train()(images(), [targets(70, 100, 2)] * 2)) == {"loss_cls", "loss_box_reg", "loss_centerness"}
    assert model.inference(images())[0].maps == {}


def fcos_mask_rois(per_image=0):
    """The training RoIs of the mask branch for one image with two objects, and its targets."""
    torch.manual_seed(0)
    cfg = small_cfg("BCNetFCOS")
    cfg.MODEL.FCOS.MASK_ROIS_PER_IMAGE = per_image
    model = build_model(cfg).train()
    with torch.no_grad():
        # Every point of P3 proposes a box of 34 x 30 pixels, decoded with the level's stride.
        model.head.distances.weight.zero_()
        model.head.distances.bias.copy_(torch.tensor([17.0, 15.0, 17.0, 15.0]) / 8)
        target = targets(70, 100, 2)
        features, sizes = model.features(images()[:1])
        _, (rois,) = model.detection_losses(features, sizes, [target])
    return rois, target


def test_fcos_trains_its_masks_on_detections_beyond_the_ground_truth():
    rois, target = fcos_mask_rois()
    assert len(rois.boxes) > len(target)
    assert torch.equal(rois.boxes[-2:], target.boxes) and rois.instances[-2:].tolist() == [0, 1]


def test_fcos_samples_at_most_so_many_mask_rois_without_replacement():
    every, _ = fcos_mask_rois()
    sampled, _ = fcos_mask_rois(per_image=3)
    assert len(sampled.boxes) == len(sampled.instances) == 3 < len(every.boxes)
    pairs = {(*box, instance) for box, instance in zip(every.boxes.tolist(), every.instances.tolist(), strict=True)}
    drawn = [(*box, instance) for box, instance in zip(sampled.boxes.tolist(), sampled.instances.tolist(), strict=True)]
    assert set(drawn) <= pairs and len(set(drawn)) == 3
    unlimited, _ = fcos_mask_rois(per_image=1000)
    assert torch.equal(unlimited.boxes, every.boxes)


@pytest.mark.parametrize(
    ("backbone_class", "in_features", "levels"),
    [
        (ResNetFPN, ("res2", "res3", "res4", "res5"), "23456"),
        (ResNetFPN, ("res3", "res4", "res5"), "3456"),
        (ResNetFPNWithP7, ("res2", "res3", "res4", "res5"), "234567"),
        (ResNetFPNWithP7, ("res3", "res4", "res5"), "34567"),
    ],
)
def test_pyramid_levels_and_strides(backbone_class, in_features, levels):
    backbone = backbone_class(build_resnet(18), in_features=in_features, out_channels=8)
    features = backbone(torch.randn(1, 3, 96, 160))
    assert list(features) == [f"p{level}" for level in levels]
    for name, feature in features.items():
        stride = backbone.strides[name]
        assert tuple(feature.shape) == (1, 8, -(-96 // stride), -(-160 // stride))
    if backbone_class is ResNetFPN:
        assert torch.equal(features["p6"], features["p5"][:, :, ::2, ::2])


@pytest.mark.parametrize("in_features", [("res2", "res3"), ("res3", "res5"), ("stem", "res3", "res4", "res5"), ()])
def test_other_input_features_are_refused(in_features):
    with pytest.raises(ValueError, match=r"MODEL\.FPN\.IN_FEATURES must be res2\.\.res5 or res3\.\.res5, got"):
        ResNetFPN(build_resnet(18), in_features=in_features, out_channels=8)


def test_where_the_stride_sits_and_what_is_frozen():
    msra = build_resnet(50, stride_in_1x1=True, freeze_at=2)
    assert msra.layer2[0].conv1.stride == (2, 2) and msra.layer2[0].conv2.stride == (1, 1)
    assert build_resnet(50).layer2[0].conv2.stride == (2, 2)
    learned = {name.split(".")[0] for name, p in msra.named_parameters() if p.requires_grad}
    assert learned == {"layer2", "layer3", "layer4"}
    assert not any(p.requires_grad for p in build_resnet(18, freeze_at=7).parameters())
    assert all(p.requires_grad for p in build_resnet(18, freeze_at=-1).parameters())  # detectron2: none
    assert build_resnet(101, groups=32, width_per_group=8).layer1[0].conv2.weight.shape == (256, 8, 3, 3)


def test_freezing_a_stage_freezes_its_batch_norm():
    resnet = build_resnet(18, norm="BN", freeze_at=2).train()
    before = resnet.layer1[0].bn1.running_mean.clone()
    x = resnet.layer1(torch.randn(2, 64, 8, 8))
    resnet.layer2(x)
    assert torch.equal(resnet.layer1[0].bn1.running_mean, before)
    assert resnet.layer2[0].bn1.running_mean.any()


def test_anchors_are_neither_rounded_nor_bound_to_the_padded_size():
    generator = AnchorGenerator([[32], [64]], [[0.5, 1.0, 2.0]], strides=(32, 64))
    first, second = generator([torch.zeros(1, 1, 9, 5), torch.zeros(1, 1, 5, 3)])
    assert first.shape == (9 * 5 * 3, 4) and second.shape == (5 * 3 * 3, 4)
    assert first[0].tolist() == pytest.approx([-22.627417, -11.313708, 22.627417, 11.313708])
    assert first[3 + 1].tolist() == [16, -16, 48, 16]  # the square anchor of the second cell
    assert second[-2].tolist() == [2 * 64 - 32, 4 * 64 - 32, 2 * 64 + 32, 4 * 64 + 32]


@pytest.mark.parametrize(("side", "level"), [(10, 0), (111, 0), (112, 1), (223, 1), (224, 2), (448, 3), (2000, 3)])
def test_rois_are_pooled_from_the_level_of_their_size(side, level):
    pooler = RoIPooler(7, (4, 8, 16, 32))
    assert pooler.levels(torch.tensor([[0.0, 0, side, side]])).tolist() == [level]


def test_pooling_is_aligned_roialign_in_the_order_of_the_boxes():
    torch.manual_seed(0)
    features = [torch.randn(2, 3, 64 // s, 64 // s) for s in (1, 2)]
    boxes = [torch.tensor([[0.0, 0, 250, 250], [8, 8, 40, 50]]), torch.tensor([[16.0, 4, 60, 44]])]
    pooled = RoIPooler(4, (4, 8))(features, boxes)
    expected = [
        roi_align(features[level][image : image + 1], [box[None]], 4, 1 / stride, 0, aligned=True)
        for level, stride, image, box in ((1, 8, 0, boxes[0][0]), (0, 4, 0, boxes[0][1]), (0, 4, 1, boxes[1][0]))
    ]
    torch.testing.assert_close(pooled, torch.cat(expected))
    assert RoIPooler(4, (4, 8))(features, [torch.zeros(0, 4)] * 2).shape == (0, 3, 4, 4)


def test_images_without_proposals_have_no_detections_and_no_box_loss():
    model = build_model(small_cfg("GeneralizedRCNN"))
    features = [torch.randn(1, 16, 64 // 2**level, 64 // 2**level) for level in range(4)]
    ((boxes, scores, labels),) = model.box_branch.detect(features, [torch.zeros(0, 4)], [(256, 256)])
    assert boxes.shape == (0, 4) and len(scores) == len(labels) == 0
    sampled = [(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))]
    losses = model.box_branch.losses(features, sampled, [torch.zeros(0, 4)])
    assert losses == {"loss_cls": 0, "loss_box_reg": 0}
