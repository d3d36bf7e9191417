"""Frozen BatchNorm in one pass or folded into convolutions: torchvision's FrozenBatchNorm2d up to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from bcnet.modeling.backbone import build_resnet
from bcnet.ops.frozen_batch_norm import FrozenBatchNorm2d, fold_frozen_batch_norm

BLOCKS = {18: (BasicBlock, [2, 2, 2, 2]), 50: (Bottleneck, [3, 4, 6, 3])}


def with_statistics(norm, seed=0):
    """The norm with random statistics and affine parameters."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in norm.named_buffers():
        buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5 * (name == "running_var"))
    return norm


def test_one_pass_is_torchvisions_two():
    norm, theirs = (with_statistics(c(5)) for c in (FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d))
    x, y = (torch.linspace(-3, 3, 2 * 5 * 12).reshape(2, 5, 3, 4).requires_grad_() for _ in range(2))
    torch.testing.assert_close(norm(x), theirs(y), atol=1e-6, rtol=1e-6)
    norm(x).square().sum().backward()
    theirs(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_folded_resnet_is_torchvisions(depth):
    torch.manual_seed(0)
    ours = build_resnet(depth, freeze_at=2)
    torch.manual_seed(0)
    block, counts = BLOCKS[depth]
    theirs = ResNet(block, counts, norm_layer=torchvision.ops.FrozenBatchNorm2d)
    del theirs.avgpool, theirs.fc
    assert list(ours.state_dict()) == list(theirs.state_dict())
    # Folding draws no random number.
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    norms = [module for module in theirs.modules() if isinstance(module, torchvision.ops.FrozenBatchNorm2d)]
    assert sum(getattr(module, "folded", False) for module in ours.modules()) == len(norms)
    for seed, norm in enumerate(norms):
        with_statistics(norm, seed)
    ours.load_state_dict(theirs.state_dict())

    def run(resnet):
        x = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
        for stage in range(1, 5):
            x = getattr(resnet, f"layer{stage}")(x)
        return x / x.detach().std()

    found, expected = run(ours), run(theirs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    found.square().sum().backward()
    expected.square().sum().backward()
    learned = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad is not None) == (not name.startswith(("conv1", "layer1")))
        if parameter.grad is not None:
            scale = learned[name].grad.std()
            torch.testing.assert_close(parameter.grad / scale, learned[name].grad / scale, atol=1e-3, rtol=1e-3)


def test_a_norm_that_learns_is_not_folded():
    block = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    before = block[0]
    fold_frozen_batch_norm(block, "0", "1")
    assert block[0] is before


def test_a_copy_follows_its_own_norm():
    block = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), FrozenBatchNorm2d(4))
    fold_frozen_batch_norm(block, "0", "1")
    twin = copy.deepcopy(block)
    with_statistics(twin[1])
    x = torch.rand(1, 3, 6, 6)
    assert twin[0].norm is twin[1] and block[0].norm is block[1]
    assert list(block.state_dict()) == ["0.weight", *(f"1.{n}" for n, _ in block[1].named_buffers())]
    plain = nn.functional.conv2d(x, block[0].weight, stride=2, padding=1)
    torch.testing.assert_close(block(x), plain / (1 + 1e-5) ** 0.5)
    assert not torch.equal(twin(x), block(x))


def test_in_mixed_precision_activations_stay_small():
    resnet = build_resnet(18)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert resnet.layer1(torch.rand(1, 64, 8, 8)).dtype == torch.bfloat16
