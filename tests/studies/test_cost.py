"""Multiply-adds per RoI of the arms of the studies, which are stated to be of equal arithmetic."""

import pytest

from bcnet.bilayer import BilayerMaskHead, PlainMaskHead
from studies.cost import mask_head_cost

CELLS = 14 * 14


def decoder(channels):
    return 4 * CELLS * (channels**2 + channels)


@pytest.mark.parametrize("channels", [64, 256])
@pytest.mark.parametrize("convs", [4, 8])
@pytest.mark.parametrize("boundary", [False, True])
def test_a_plain_head_costs_its_convolutions_and_decoders(channels, convs, boundary):
    cost = mask_head_cost(PlainMaskHead(channels, channels, num_conv=convs, use_boundary=boundary), channels, 14)
    convolutions = convs * 9 * CELLS * channels**2
    assert cost["multiply_adds_masks_only"] == convolutions + decoder(channels)
    assert cost["multiply_adds_all_maps"] == convolutions + (1 + boundary) * decoder(channels)


@pytest.mark.parametrize("channels", [64, 256])
def test_the_bilayer_head_costs_two_layers_with_graph_convolutions(channels):
    cost = mask_head_cost(BilayerMaskHead(channels), channels, 14)
    layer = 4 * 9 * CELLS * channels**2 + 4 * CELLS * channels**2 + 2 * CELLS**2 * channels
    assert cost["multiply_adds_masks_only"] == 2 * layer + decoder(channels)
    assert cost["multiply_adds_all_maps"] == 2 * layer + 4 * decoder(channels)


def test_eight_convolutions_are_four_fifths_of_the_bilayer_head_and_ten_are_its_equal():
    bilayer = mask_head_cost(BilayerMaskHead(64), 64, 14)["multiply_adds_masks_only"]
    plain = {
        convs: mask_head_cost(PlainMaskHead(64, 64, num_conv=convs), 64, 14)["multiply_adds_masks_only"]
        for convs in (4, 8, 10)
    }
    assert {convs: round(cost / bilayer, 2) for convs, cost in plain.items()} == {4: 0.42, 8: 0.79, 10: 0.98}


def test_counting_leaves_the_head_as_it_was():
    head = BilayerMaskHead(8).train()
    mask_head_cost(head, 8, 14)
    assert head.training and head.occluder_layer.gcn.norm.num_batches_tracked == 0
