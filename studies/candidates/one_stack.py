"""Mask heads of one stack of convolutions, from which every map is decoded."""

from __future__ import annotations

from torch import Tensor

from bcnet.bilayer.layer import MaskLayer
from bcnet.maps import OCCLUDEE, OCCLUDER
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead
from studies.candidates.neighbours import LearnsNeighbours


@MASK_HEAD_REGISTRY.register()
class OneStackHead(CandidateHead):
    """Eight convolutions and a decoder per map: does information about the occluder need a layer of its own?"""

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        self.stack = MaskLayer(channels, channels, num_conv=2 * num_conv, **options)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        features = self.stack(x)
        return {OCCLUDER: features, OCCLUDEE: features}


@MASK_HEAD_REGISTRY.register()
class OneStackNeighboursHead(LearnsNeighbours, OneStackHead):
    """`OneStackHead` that learns the neighbours too."""
