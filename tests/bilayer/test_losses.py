from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bcnet.bilayer import MapTarget, balanced_rois, map_targets, mask_losses
from bcnet.maps import OCCLUDEE, OCCLUDEE_MASK, OCCLUDER, PUBLISHED_MAPS, MapSpec, with_weights

NAMES = ["loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"]


def random_case(count, occluded, seed=0):
    """Logits by map name, and the two mask layers."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, count, 8, 8, generator=generator).requires_grad_().unbind(0)
    occludee, occluder = torch.rand(2, count, 8, 8, generator=generator) > 0.5
    occluder[occluded:] = False
    layers = {OCCLUDEE: MapTarget(occludee), OCCLUDER: MapTarget(occluder)}
    return dict(zip((spec.name for spec in PUBLISHED_MAPS), logits, strict=True)), layers


def losses_of(logits, layers, maps=PUBLISHED_MAPS, **options):
    return mask_losses(maps, logits, map_targets(maps, layers), layers, **options)


def test_losses_are_weighted_means_of_binary_cross_entropy():
    logits, layers = random_case(count=6, occluded=6)
    losses = losses_of(logits, layers)
    assert list(losses) == NAMES
    targets = map_targets(PUBLISHED_MAPS, layers)
    for name, spec, weight in zip(NAMES, PUBLISHED_MAPS, (1.0, 1.0, 0.25, 1.0), strict=True):
        target = targets[spec.name].values.float()
        expected = weight * F.binary_cross_entropy_with_logits(logits[spec.name], target)
        torch.testing.assert_close(losses[name], expected)


def test_weights_scale_their_own_loss():
    logits, layers = random_case(4, 4)
    names = [spec.name for spec in PUBLISHED_MAPS]
    plain = losses_of(logits, layers, with_weights(PUBLISHED_MAPS, dict.fromkeys(names, 1.0)))
    scaled = losses_of(logits, layers, with_weights(PUBLISHED_MAPS, dict(zip(names, (2, 3, 5, 7), strict=True))))
    for name, factor in zip(NAMES, (2, 3, 5, 7), strict=True):
        torch.testing.assert_close(scaled[name], plain[name] * factor)


def test_with_ratio_zero_the_occluder_is_learned_where_there_is_one():
    logits, layers = random_case(count=6, occluded=2)
    losses = losses_of(logits, layers, negative_ratio=0)
    target = layers[OCCLUDER].values[:2].float()
    expected = 0.25 * F.binary_cross_entropy_with_logits(logits["occluder_mask"][:2], target)
    torch.testing.assert_close(losses["loss_occluder_mask"], expected)


@pytest.mark.parametrize(("count", "occluded", "expected"), [(10, 3, 6), (10, 7, 10), (10, 0, 0), (4, 4, 4), (0, 0, 0)])
def test_as_many_others_are_drawn_as_there_are_occluders(count, occluded, expected):
    _, layers = random_case(count, occluded)
    chosen = balanced_rois(layers[OCCLUDER].values)
    assert int(chosen.sum()) == expected
    assert chosen[:occluded].all()


def test_others_are_drawn_at_random_without_replacement():
    _, layers = random_case(10, 2)
    torch.manual_seed(0)
    draws = torch.stack([balanced_rois(layers[OCCLUDER].values) for _ in range(400)])
    assert (draws.sum(dim=1) == 4).all()
    frequency = draws[:, 2:].float().mean(dim=0)  # 2 of 8 others
    assert frequency.min() > 0.15 and frequency.max() < 0.35


def test_both_occluder_losses_are_taken_over_the_same_rois():
    logits, layers = random_case(10, 2)
    twin = replace(PUBLISHED_MAPS[2], name="twin", loss_name="loss_twin")
    losses = losses_of({**logits, "twin": logits["occluder_mask"]}, layers, (*PUBLISHED_MAPS, twin))
    assert losses["loss_twin"] == losses["loss_occluder_mask"]


def test_a_negative_ratio_takes_every_roi():
    _, layers = random_case(5, 1)
    assert balanced_rois(layers[OCCLUDER].values, -1).all()


@pytest.mark.parametrize(("count", "occluded"), [(0, 0), (3, 0)])
def test_without_rois_or_occluders_losses_are_differentiable_zeros(count, occluded):
    logits, layers = random_case(count, occluded)
    losses = losses_of(logits, layers)
    assert list(losses) == NAMES
    zero = NAMES if count == 0 else NAMES[2:]
    assert all(losses[name].item() == 0 and losses[name].requires_grad for name in zero)
    sum(losses.values()).backward()


def test_the_plain_head_has_one_loss():
    logits, layers = random_case(3, 1)
    assert list(losses_of(logits, layers, (OCCLUDEE_MASK,))) == ["loss_mask"]


def test_half_precision_logits_are_compared_in_single_precision():
    logits, layers = random_case(3, 3)
    half = losses_of({name: values.bfloat16() for name, values in logits.items()}, layers)
    assert all(loss.dtype == torch.float32 for loss in half.values())


def test_unknown_pixels_are_left_out_of_the_mean_of_their_roi():
    logits, layers = random_case(2, 2)
    known = torch.ones(2, 8, 8, dtype=torch.bool)
    known[0, :, 3:] = False
    occludee = layers[OCCLUDEE].values
    losses = losses_of(logits, {**layers, OCCLUDEE: MapTarget(occludee, known)}, (OCCLUDEE_MASK,))
    per_pixel = F.binary_cross_entropy_with_logits(logits["occludee_mask"], occludee.float(), reduction="none")
    expected = (per_pixel[0, :, :3].mean() + per_pixel[1].mean()) / 2
    torch.testing.assert_close(losses["loss_mask"], expected)
    (gradient,) = torch.autograd.grad(losses["loss_mask"], logits["occludee_mask"])
    assert not gradient[0, :, 3:].any() and gradient[0, :, :3].all()


def test_rois_without_a_known_pixel_do_not_count():
    logits, layers = random_case(3, 3)
    known = torch.ones(3, 8, 8, dtype=torch.bool)
    known[1] = False
    occludee = layers[OCCLUDEE].values
    losses = losses_of(logits, {**layers, OCCLUDEE: MapTarget(occludee, known)}, (OCCLUDEE_MASK,))
    two = {OCCLUDEE: MapTarget(occludee[[0, 2]])}
    expected = losses_of({"occludee_mask": logits["occludee_mask"][[0, 2]]}, two, (OCCLUDEE_MASK,))
    torch.testing.assert_close(losses["loss_mask"], expected["loss_mask"])


def test_a_map_may_bring_its_own_target_and_loss():
    spec = MapSpec(
        name="area",
        short_name="area",
        layer=OCCLUDEE,
        kind="area",
        target=OCCLUDEE,
        loss_name="loss_area",
        weight=2.0,
        derive=lambda masks: masks.float().mean(dim=(1, 2), keepdim=True).expand(masks.shape),
        loss=lambda logits, target: (logits.sigmoid() - target).abs(),
    )
    logits, layers = random_case(3, 1)
    losses = losses_of({**logits, "area": logits["occludee_mask"]}, layers, (*PUBLISHED_MAPS, spec))
    share = layers[OCCLUDEE].values.float().mean(dim=(1, 2))[:, None, None]
    expected = 2 * (logits["occludee_mask"].sigmoid() - share).abs().mean()
    torch.testing.assert_close(losses["loss_area"], expected)
    assert list(losses) == [*NAMES, "loss_area"]
