"""Bilayer mask head in reverse: the occluder layer is fed by the occludee's features."""

from __future__ import annotations

from torch import Tensor

from bcnet.bilayer.layer import MaskLayer
from bcnet.maps import OCCLUDEE, OCCLUDER
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead


@MASK_HEAD_REGISTRY.register()
class OccludeeFirstHead(CandidateHead):
    """The visible mask costs one layer alone; the occluder is explained by what the instance is known to be.

    Half of the published head's arithmetic for masks alone would be a handicap, so `EXTRA` of the occluder's
    convolutions go to the occludee layer: six and two.
    """

    EXTRA = 2

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        extra = min(self.EXTRA, num_conv - 1)
        own = options if num_conv - extra >= 2 else {**options, "use_gcn": False}
        self.occludee_layer = MaskLayer(channels, channels, num_conv=num_conv + extra, **options)
        self.occluder_layer = MaskLayer(channels, channels, num_conv=num_conv - extra, **own)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        occludee = self.occludee_layer(x)
        return {OCCLUDEE: occludee, OCCLUDER: self.occluder_layer(x + occludee)}
