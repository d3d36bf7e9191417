import pytest
import torch
import torch.nn.functional as F

from bcnet.bilayer import MaskLogits, MaskLossWeights, MaskTargets, mask_losses, occluder_rois

NAMES = ["loss_mask", "loss_mask_boundary", "loss_occluder_mask", "loss_occluder_boundary"]


def random_case(count, occluded, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = MaskLogits(*torch.randn(4, count, 8, 8, generator=generator).requires_grad_().unbind(0))
    masks = torch.rand(4, count, 8, 8, generator=generator) > 0.5
    masks[2:, occluded:] = False
    return logits, MaskTargets(*masks)


def test_losses_are_weighted_means_of_binary_cross_entropy():
    logits, targets = random_case(count=6, occluded=6)
    losses = mask_losses(logits, targets)
    assert list(losses) == NAMES
    for name, prediction, target, weight in zip(NAMES, logits, targets, (1.0, 1.0, 0.25, 1.0), strict=True):
        expected = weight * F.binary_cross_entropy_with_logits(prediction, target.float())
        torch.testing.assert_close(losses[name], expected)


def test_weights_scale_their_own_loss():
    logits, targets = random_case(4, 4)
    plain = mask_losses(logits, targets, weights=MaskLossWeights(1, 1, 1, 1))
    scaled = mask_losses(logits, targets, weights=MaskLossWeights(2, 3, 5, 7))
    for name, factor in zip(NAMES, (2, 3, 5, 7), strict=True):
        torch.testing.assert_close(scaled[name], plain[name] * factor)


def test_with_ratio_zero_the_occluder_is_learned_where_there_is_one():
    logits, targets = random_case(count=6, occluded=2)
    losses = mask_losses(logits, targets, occluder_negative_ratio=0)
    expected = 0.25 * F.binary_cross_entropy_with_logits(logits.occluder_mask[:2], targets.occluder_mask[:2].float())
    torch.testing.assert_close(losses["loss_occluder_mask"], expected)


@pytest.mark.parametrize(("count", "occluded", "expected"), [(10, 3, 6), (10, 7, 10), (10, 0, 0), (4, 4, 4), (0, 0, 0)])
def test_as_many_others_are_drawn_as_there_are_occluders(count, occluded, expected):
    _, targets = random_case(count, occluded)
    chosen = occluder_rois(targets.occluder_mask)
    assert int(chosen.sum()) == expected
    assert chosen[:occluded].all()


def test_others_are_drawn_at_random_without_replacement():
    _, targets = random_case(10, 2)
    torch.manual_seed(0)
    draws = torch.stack([occluder_rois(targets.occluder_mask) for _ in range(400)])
    assert (draws.sum(dim=1) == 4).all()
    frequency = draws[:, 2:].float().mean(dim=0)  # 2 of 8 others
    assert frequency.min() > 0.15 and frequency.max() < 0.35


def test_a_negative_ratio_takes_every_roi():
    _, targets = random_case(5, 1)
    assert occluder_rois(targets.occluder_mask, -1).all()


@pytest.mark.parametrize(("count", "occluded"), [(0, 0), (3, 0)])
def test_without_rois_or_occluders_losses_are_differentiable_zeros(count, occluded):
    logits, targets = random_case(count, occluded)
    losses = mask_losses(logits, targets)
    assert list(losses) == NAMES
    zero = NAMES if count == 0 else NAMES[2:]
    assert all(losses[name].item() == 0 and losses[name].requires_grad for name in zero)
    sum(losses.values()).backward()


def test_the_plain_head_has_one_loss():
    logits, targets = random_case(3, 1)
    assert list(mask_losses(MaskLogits(logits.occludee_mask), targets)) == ["loss_mask"]


def test_half_precision_logits_are_compared_in_single_precision():
    logits, targets = random_case(3, 3)
    half = mask_losses(MaskLogits(*(x.bfloat16() for x in logits)), targets)
    assert all(loss.dtype == torch.float32 for loss in half.values())
