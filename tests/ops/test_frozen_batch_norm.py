"""Frozen BatchNorm in one pass is torchvision's FrozenBatchNorm2d up to rounding."""

from __future__ import annotations

import pytest
import torch
import torchvision

from bcnet.modeling.backbone import build_resnet
from bcnet.ops.frozen_batch_norm import FrozenBatchNorm2d, convolved_and_normalised


def with_statistics(norm):
    """The norm with random statistics and affine parameters."""
    generator = torch.Generator().manual_seed(0)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_mixed_precision_gives_the_same_type(dtype):
    norm, theirs = (with_statistics(c(5)) for c in (FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d))
    x = torch.linspace(-3, 3, 60).reshape(1, 5, 3, 4).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        found, expected = norm(x), theirs(x)
    assert found.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("norm", "freeze_at"), [("FrozenBN", 0), ("BN", 5)])
def test_frozen_resnets_have_it(norm, freeze_at):
    resnet = build_resnet(18, norm=norm, freeze_at=freeze_at)
    norms = [m for m in resnet.modules() if isinstance(m, torchvision.ops.FrozenBatchNorm2d)]
    assert len(norms) == 20 and all(isinstance(m, FrozenBatchNorm2d) for m in norms)


@pytest.mark.parametrize(("size", "folded"), [(16, True), (4, False)])
@pytest.mark.parametrize("groups", [1, 2])
def test_folded_is_convolution_and_norm(size, folded, groups, monkeypatch):
    """Folded where the output has more pixels than a filter weights; equal either way, with the gradients."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups, bias=False)
    norm = with_statistics(FrozenBatchNorm2d(6))
    x = torch.randn(2, 4, size, size, requires_grad=True)

    def gradients(y):
        return torch.autograd.grad(y.square().sum(), (x, conv.weight))

    expected = norm(conv(x))
    expected_gradients = gradients(expected)
    passes = []
    monkeypatch.setattr(type(norm), "forward", lambda self, y: passes.append(1) or norm_of(self, y))
    norm_of = torchvision.ops.FrozenBatchNorm2d.forward
    found = convolved_and_normalised(conv, norm, x)
    assert len(passes) == (0 if folded else 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(found), expected_gradients, rtol=1e-4, atol=1e-4)


def test_other_norms_and_mixed_precision_are_not_folded():
    conv, x = torch.nn.Conv2d(1, 2, 1, bias=False), torch.ones(1, 1, 5, 5)
    batch_norm = torch.nn.BatchNorm2d(2)
    assert torch.equal(convolved_and_normalised(conv, batch_norm.eval(), x), batch_norm(conv(x)))
    norm = with_statistics(FrozenBatchNorm2d(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = convolved_and_normalised(conv, norm, x), norm(conv(x))
    assert found.dtype == torch.float32 and torch.equal(found, expected)
