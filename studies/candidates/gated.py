"""Bilayer mask head whose occludee layer decides, cell by cell, how much it takes of the occluder's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcnet.bilayer.layer import MaskLayer
from bcnet.maps import OCCLUDEE, OCCLUDER
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead


@MASK_HEAD_REGISTRY.register()
class GatedHead(CandidateHead):
    """``occludee_layer(x + gate * occluder)``, the gate of every channel and cell being computed from both.

    The published head adds the occluder's features as they are, gate 1. Here it starts at 1/2, and can close where the
    occluder only disturbs. It replaces a convolution of the occluder layer, at less cost.
    """

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        convs = max(num_conv - 1, 2 if options["use_gcn"] else 1)
        self.occluder_layer = MaskLayer(channels, channels, num_conv=convs, **options)
        self.occludee_layer = MaskLayer(channels, channels, num_conv=num_conv, **options)
        self.gate = nn.Conv2d(2 * channels, channels, kernel_size=1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)  # pyright: ignore[reportArgumentType]

    def features(self, x: Tensor) -> dict[str, Tensor]:
        occluder = self.occluder_layer(x)
        gate = self.gate(torch.cat([x, occluder], dim=1)).sigmoid()
        return {OCCLUDER: occluder, OCCLUDEE: self.occludee_layer(x + gate * occluder)}
