"""RoIAlign over a pyramid against torchvision's, level by level."""

import pytest
import torch
from torchvision.ops import roi_align

from bcnet.modeling.pooler import RoIPooler
from bcnet.ops.roi_align import level_by_level, pyramid_roi_align

STRIDES = (4, 8, 16)


def pyramid(dtype=torch.float32, channels=5, size=(64, 96)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, size[0] // s, size[1] // s, generator=generator, dtype=dtype) for s in STRIDES]


def random_rois(count=40, reach=1.0):
    """Of all sizes; some reach over the image's edge by up to its size times `reach`, some have no size."""
    generator = torch.Generator().manual_seed(1)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([96.0, 64.0]) * (1 + 2 * reach) - 64 * reach
    half = torch.exp(torch.rand(count, 2, generator=generator) * 4 - 0.5)
    rois = torch.cat([torch.arange(count)[:, None] % 2, centre - half, centre + half], dim=1)
    rois[0, 3:] = rois[0, 1:3]
    rois[1, 3] = rois[1, 1]
    levels = torch.arange(count) % len(STRIDES)
    return rois, levels


def by_torchvision(features, rois, levels, side, sampling_ratio):
    pooled = features[0].new_zeros(len(rois), features[0].shape[1], side, side)
    for level, (feature, stride) in enumerate(zip(features, STRIDES, strict=True)):
        own = levels == level
        pooled[own] = roi_align(feature, rois[own].to(feature.dtype), side, 1 / stride, sampling_ratio, True)
    return pooled


@pytest.mark.parametrize("reach", [0.0, 1.0])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("side", [3, 7])
def test_values_and_gradients_are_torchvisions(side, sampling_ratio, reach):
    rois, levels = random_rois(reach=reach)
    weight = torch.randn(len(rois), 5, side, side, generator=torch.Generator().manual_seed(2))
    outcomes = []
    for way in (by_torchvision, ours):
        features = [f.requires_grad_() for f in pyramid()]
        pooled = way(features, rois, levels, side, sampling_ratio)
        gradients = torch.autograd.grad((pooled * weight).sum(), features)
        outcomes.append((pooled, *gradients))
    for theirs, mine in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=2e-5)
    assert outcomes[0][0].abs().sum() > 0


def ours(features, rois, levels, side, sampling_ratio):
    return pyramid_roi_align(features, rois, levels, side, strides=STRIDES, sampling_ratio=sampling_ratio)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_all_rois_on_every_level_is_exact(sampling_ratio):
    rois, levels = random_rois()
    features = pyramid()
    summed = level_by_level(features, rois, levels, 7, STRIDES, sampling_ratio)
    assert torch.equal(summed, by_torchvision(features, rois, levels, 7, sampling_ratio))


def test_gradients_by_finite_differences():
    rois, levels = random_rois(count=6, reach=0.2)
    features = [f.requires_grad_() for f in pyramid(torch.float64, channels=2, size=(32, 32))]
    torch.autograd.gradcheck(lambda *maps: ours(maps, rois.double(), levels, 2, 0), features)


def test_half_precision_features_do_not_move_the_rois():
    # 1003 and 1021 are no bfloat16 numbers: a RoI rounded to them would be pooled four pixels away.
    ramp = torch.arange(300.0).repeat(4, 1)[None, None].to(torch.bfloat16)
    rois, levels = torch.tensor([[0.0, 1003, 0, 1021, 16]]), torch.tensor([0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pyramid_roi_align([ramp.requires_grad_()], rois, levels, 1, strides=(4,), sampling_ratio=2)
    (gradient,) = torch.autograd.grad(pooled.float().sum(), ramp)
    assert gradient.float().sum() == 1
    expected = roi_align(ramp.float(), rois, 1, 1 / 4, 2, True).to(torch.bfloat16)
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled, expected)


def test_layout_of_the_features_plays_no_part():
    rois, levels = random_rois()
    features = pyramid()
    last = [f.contiguous(memory_format=torch.channels_last) for f in features]
    assert torch.equal(ours(features, rois, levels, 7, 0), ours(last, rois, levels, 7, 0))


def test_no_rois_keep_every_level_in_the_graph():
    features = [f.requires_grad_() for f in pyramid()]
    pooled = RoIPooler(7, STRIDES)(features, [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert pooled.shape == (0, 5, 7, 7)
    for gradient in torch.autograd.grad(pooled.sum(), features):
        assert (gradient == 0).all()


def test_boxes_that_are_none_are_pooled_to_zeros():
    bad = [[5.0, 5, float("nan"), 9], [float("inf")] * 4, [20, 20, 4, 4]]
    pooled = RoIPooler(7, STRIDES)(pyramid(), [torch.tensor([*bad, [4.0, 4, 20, 20]]), torch.zeros(0, 4)])
    assert (pooled[:3] == 0).all() and (pooled[3] != 0).any()
