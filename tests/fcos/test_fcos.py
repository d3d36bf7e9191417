import math

import pytest
import torch

from bcnet.fcos import FCOSHead, FCOSOutput, FCOSTargets, assign_targets, decode_detections, fcos_losses, level_points
from bcnet.fcos.losses import centerness_target, giou_loss

STRIDES = (8, 16, 32, 64, 128)


def pyramid(side=256):
    return [level_points(side // s, side // s, s) for s in STRIDES]


def assign(points, boxes, classes=None, **kwargs):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    classes = torch.arange(len(boxes)) if classes is None else torch.tensor(classes)
    options = {"center_sampling_radius": 1.5, "sizes_of_interest": (64, 128, 256, 512)[: len(points) - 1]} | kwargs
    targets = assign_targets(points, STRIDES[: len(points)], [boxes], [classes], num_classes=80, **options)
    return targets.classes[0], targets.distances[0]


def test_points_are_cell_centres_row_by_row():
    assert level_points(2, 3, 8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_a_small_object_is_assigned_to_the_finest_level_inside_its_centre_box():
    points = pyramid()
    labels, distances = assign(points, [[40, 40, 80, 80]], [7])
    positive = torch.nonzero(labels < 80)[:, 0]
    # The centre box is (60 - 12, 60 + 12); points at 52, 60, 68 lie strictly inside, 44 and 76 do not.
    chosen = torch.cat(points)[positive]
    assert sorted(map(tuple, chosen.tolist())) == [(x, y) for x in (52, 60, 68) for y in (52, 60, 68)]
    assert positive.max() < len(points[0])
    centre = positive[(chosen == 60).all(dim=1)]
    assert distances[centre].tolist() == [[20 / 8] * 4]


def test_a_point_on_the_edge_of_the_centre_box_is_not_inside():
    points = [torch.tensor([[8.0, 10.0], [8.001, 10.0], [20.0, 10.0], [32.0, 10.0]])]
    labels, _ = assign(points, [[0, 0, 40, 20]], sizes_of_interest=())
    assert (labels < 80).tolist() == [False, True, True, False]


def test_the_centre_box_is_clipped_to_the_object():
    points = [torch.tensor([[5.0, 10.0], [4.0, 10.0], [3.0, 10.0]])]
    labels, _ = assign(points, [[4, 0, 8, 20]], sizes_of_interest=())
    assert (labels < 80).tolist() == [True, False, False]


def test_without_center_sampling_the_whole_box_counts():
    points = [torch.tensor([[1.0, 1.0], [39.0, 19.0], [0.0, 5.0]])]
    labels, _ = assign(points, [[0, 0, 40, 20]], center_sampling_radius=0, sizes_of_interest=())
    assert (labels < 80).tolist() == [True, True, False]


@pytest.mark.parametrize(("size", "levels"), [(63.9, [0]), (64.0, [0, 1]), (64.1, [1]), (128.0, [1, 2]), (600.0, [4])])
def test_sizes_of_interest_include_both_ends(size, levels):
    # One point at the same place on every level, whose largest distance is `size`.
    points = [torch.tensor([[1000.0, 1000.0]]) for _ in STRIDES]
    labels, _ = assign(points, [[1000 - size, 990, 1000 + 10, 1010]], center_sampling_radius=0)
    assert torch.nonzero(labels < 80)[:, 0].tolist() == levels


def test_a_point_that_several_objects_claim_goes_to_the_smallest():
    points = [torch.tensor([[50.0, 50.0]])]
    labels, distances = assign(points, [[0, 0, 100, 100], [30, 30, 70, 70], [20, 20, 80, 80]], sizes_of_interest=())
    assert labels.tolist() == [1]
    assert distances.tolist() == [[2.5] * 4]


def test_points_of_a_crowd_are_assigned_part_by_part(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, generator=generator) * 100
    boxes = torch.cat([corners, corners + 2 + torch.rand(40, 2, generator=generator) * 60], dim=1)
    points = [level_points(128 // stride, 128 // stride, stride) for stride in (8, 16)]

    def assigned():
        options = {"num_classes": 40, "center_sampling_radius": 1.5, "sizes_of_interest": [32]}
        return assign_targets(points, (8, 16), [boxes, boxes[:0]], [torch.arange(40), torch.arange(0)], **options)

    whole = assigned()
    assert (whole.classes[0] < 40).sum() > 20
    monkeypatch.setattr("bcnet.fcos.targets.MAX_PAIRS", 1000)
    assert all(torch.equal(a, b) for a, b in zip(assigned(), whole, strict=True))


def test_an_image_without_objects_is_all_background():
    labels, distances = assign(pyramid(), [])
    assert (labels == 80).all() and torch.isfinite(distances).all()


def test_centerness_is_one_in_the_middle_and_falls_to_the_sides():
    distances = torch.tensor([[5.0, 5, 5, 5], [1, 5, 4, 5], [1, 2, 4, 8]])
    assert centerness_target(distances).tolist() == pytest.approx([1.0, 0.5, 0.25])


def test_giou_of_equal_boxes_is_no_loss_and_of_a_known_pair_is_known():
    equal = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert giou_loss(equal, equal).item() == pytest.approx(0.0, abs=1e-6)
    # 2x2 around the point against 4x4: I = 4, U = 16, hull = 16.
    assert giou_loss(torch.ones(4), torch.full((4,), 2.0)).item() == pytest.approx(1 - 5 / 17)
    # (1, 1, 0, 1) against (0, 1, 1, 1): I = 0, U = 4, hull = 4.
    assert giou_loss(torch.tensor([1.0, 1, 0, 1]), torch.tensor([0.0, 1, 1, 1])).item() == pytest.approx(1 - 1 / 5)


def case(classes):
    torch.manual_seed(0)
    points = len(classes)
    output = FCOSOutput(torch.randn(1, points, 3), torch.rand(1, points, 4) * 3, torch.randn(1, points))
    output = FCOSOutput(*(x.requires_grad_() for x in output))
    return output, FCOSTargets(torch.tensor([classes]), torch.rand(1, points, 4) * 3 + 0.1)


def test_losses_are_those_of_the_formulas():
    output, targets = case([0, 3, 2, 3])
    losses = fcos_losses(output, targets, focal_alpha=0.25, focal_gamma=2.0, box_weight=1.25)
    one_hot = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    p = output.logits[0].sigmoid()
    pt, alpha = torch.where(one_hot > 0, p, 1 - p), torch.where(one_hot > 0, 0.25, 0.75)
    assert losses["loss_cls"].item() == pytest.approx((-alpha * (1 - pt) ** 2 * pt.log()).sum().item() / 2, rel=1e-5)
    kept = torch.tensor([0, 2])
    centerness = centerness_target(targets.distances[0, kept])
    giou = giou_loss(output.distances[0, kept], targets.distances[0, kept])
    expected = 1.25 * (giou * centerness).sum() / centerness.sum()
    assert losses["loss_box_reg"].item() == pytest.approx(expected.item(), rel=1e-5)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(output.centerness[0, kept], centerness)
    assert losses["loss_centerness"].item() == pytest.approx(bce.item(), rel=1e-5)


def test_without_positives_losses_are_finite_and_differentiable():
    output, targets = case([3, 3, 3])
    losses = fcos_losses(output, targets, focal_alpha=0.25, focal_gamma=2.0, box_weight=1.25)
    assert losses["loss_box_reg"].item() == 0 and losses["loss_centerness"].item() == 0
    assert losses["loss_cls"].item() > 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(x.grad).all() for x in output)


def test_head_shares_towers_between_levels_and_scales_each():
    torch.manual_seed(0)
    head = FCOSHead(8, 5, num_levels=2, num_conv=4, norm_groups=4, prior_prob=0.01).eval()
    feature = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        head.distances.bias.fill_(1.0)
        head.scales[1].fill_(3.0)
        output = head([feature, feature])
    assert output.logits.shape == (1, 32, 5) and output.centerness.shape == (1, 32)
    torch.testing.assert_close(output.logits[:, :16], output.logits[:, 16:])
    torch.testing.assert_close(output.distances[:, 16:], 3 * output.distances[:, :16])
    assert (output.distances >= 0).all()


def test_initial_class_probability_is_the_prior():
    torch.manual_seed(0)
    head = FCOSHead(32, 5, num_levels=5, num_conv=4, norm_groups=32, prior_prob=0.01)
    assert head.cls_logits.bias.tolist() == pytest.approx([-math.log(99)] * 5)
    assert head.cls_logits.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert head.box_tower[0].weight.std().item() == pytest.approx(0.01, rel=0.1)


def decode(probability, centerness, points, distances=2.0, **kwargs):
    """One level of stride 8; `probability` is [points, classes]."""
    probability, centerness = torch.tensor(probability), torch.tensor(centerness)
    output = FCOSOutput(
        probability.logit()[None], torch.full((1, len(points), 4), float(distances)), centerness.logit()[None]
    )
    options = {"score_threshold": 0.03, "topk": 1000, "nms_threshold": 0.6, "max_detections": 100} | kwargs
    return decode_detections(output, [torch.tensor(points)], [8], [(100, 120)], **options)[0]


def test_the_threshold_is_on_the_class_probability_before_centerness():
    boxes, scores, classes = decode([[0.031, 0.029]], [0.01], [[50.0, 40.0]])
    assert classes.tolist() == [0]
    assert scores.tolist() == pytest.approx([math.sqrt(0.031 * 0.01)])
    assert boxes.tolist() == [[34, 24, 66, 56]]


def test_topk_is_by_the_product_with_centerness():
    probability, centerness = [[0.9], [0.5], [0.6]], [0.1, 0.9, 0.9]
    points = [[10.0, 10.0], [50.0, 50.0], [90.0, 90.0]]
    _, scores, _ = decode(probability, centerness, points, distances=0.5, topk=2)
    assert scores.tolist() == pytest.approx([math.sqrt(0.54), math.sqrt(0.45)])


def test_suppression_is_per_class_and_keeps_the_best():
    points = [[50.0, 50.0], [51.0, 50.0]]
    _, scores, classes = decode([[0.9, 0.8], [0.7, 0.95]], [0.5, 0.5], points)
    assert classes.tolist() == [1, 0]
    assert scores.tolist() == pytest.approx([math.sqrt(0.475), math.sqrt(0.45)])


def test_at_most_max_detections_are_kept_and_boxes_are_clipped():
    points = [[float(x), 5.0] for x in range(5, 120, 20)]
    boxes, scores, _ = decode([[0.5]] * len(points), [0.5] * len(points), points, distances=1.0, max_detections=3)
    assert len(boxes) == len(scores) == 3
    assert (boxes[:, 1] == 0).all() and (boxes >= 0).all()


def test_nothing_above_the_threshold_gives_no_detections():
    boxes, scores, classes = decode([[0.01]], [0.5], [[50.0, 50.0]])
    assert boxes.shape == (0, 4) and scores.shape == (0,) and classes.shape == (0,)
