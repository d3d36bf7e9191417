"""The feature pyramid is torchvision's, bit for bit, in inference and training, whatever the levels' sizes."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from bcnet.modeling.feature_pyramid import FeaturePyramidNetwork

HALVED, ODD = ((8, 12), (4, 6), (2, 3)), ((9, 12), (5, 6), (3, 3))


@pytest.mark.parametrize("sizes", [HALVED, ODD], ids=["halved", "odd"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
def test_is_torchvisions(sizes, layout):
    ours = FeaturePyramidNetwork([3, 4, 5], 6, extra_blocks=LastLevelMaxPool())
    theirs = torchvision.ops.FeaturePyramidNetwork([3, 4, 5], 6, extra_blocks=LastLevelMaxPool())
    theirs.load_state_dict(ours.state_dict())

    def run(network):
        network.to(memory_format=layout)
        inputs = {
            f"p{i}": torch.linspace(-1, 1, 2 * (3 + i) * h * w).view(2, 3 + i, h, w).to(memory_format=layout)
            for i, (h, w) in enumerate(sizes)
        }
        kept = copy.deepcopy(inputs)
        levels = network(inputs)
        sum(level.square().sum() for level in levels.values()).backward()
        assert all(torch.equal(inputs[name], kept[name]) for name in inputs)
        return levels, [parameter.grad for parameter in network.parameters()]

    (levels, gradients), (their_levels, their_gradients) = run(ours), run(theirs)
    assert list(levels) == list(their_levels) == ["p0", "p1", "p2", "pool"]
    assert all(torch.equal(levels[name], their_levels[name]) for name in levels)
    for gradient, expected in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)
