"""Mask head whose two layers share their first convolutions."""

from __future__ import annotations

from torch import Tensor

from bcnet.bilayer.layer import MaskLayer
from bcnet.maps import OCCLUDEE, OCCLUDER
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead


@MASK_HEAD_REGISTRY.register()
class SplitLateHead(CandidateHead):
    """Four shared convolutions, then half of the rest for each layer, so that an occludee's maps lie six deep."""

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        own = {**options, "use_gcn": False}
        self.shared = MaskLayer(channels, channels, num_conv=num_conv, **options)
        self.occluder_layer = MaskLayer(channels, channels, num_conv=num_conv // 2, **own)
        self.occludee_layer = MaskLayer(channels, channels, num_conv=num_conv - num_conv // 2, **own)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        shared = self.shared(x)
        return {OCCLUDER: self.occluder_layer(shared), OCCLUDEE: self.occludee_layer(shared)}
