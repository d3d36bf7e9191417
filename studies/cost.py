"""Arithmetic of a mask head: parameters, and multiply-adds (MACs) per RoI."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bcnet.maps import OCCLUDEE_MASK
from bcnet.modeling.modes import evaluating


def mask_head_cost(head: nn.Module, channels: int, side: int) -> dict[str, float]:
    """Parameters of a mask head, and its multiply-adds per RoI.

    Counted are convolutions and matrix products, those of the attention included.

    Args:
        head: a `bcnet.bilayer.MaskHead`.
        channels: of the pooled features.
        side: of the pooled features, in cells.

    Returns:
        dict: "parameters"; "multiply_adds_all_maps", as in training; "multiply_adds_masks_only", the visible mask
        alone, as in inference.
    """
    cost: dict[str, float] = {"parameters": sum(p.numel() for p in head.parameters())}
    x = torch.zeros(1, channels, side, side, device=next(head.parameters()).device)
    for name, maps in (("all_maps", None), ("masks_only", [OCCLUDEE_MASK.name])):
        counter = FlopCounterMode(display=False)
        # The counter does not know the CPU's fused attention; as matrix products it is counted. In training the forward
        # pass would change the statistics of the graph convolutions' BatchNorm.
        with evaluating(head), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            head(x, maps)
        cost[f"multiply_adds_{name}"] = counter.get_total_flops() / 2
    return cost
