"""Mask heads of one stack of convolutions, from which every map is decoded."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bcnet.bilayer.layer import MaskLayer
from bcnet.data.source_masks import NEIGHBOURS
from bcnet.maps import OCCLUDEE, OCCLUDER, PUBLISHED_MAPS, MapSpec
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead

NEIGHBOURS_MASK = MapSpec(
    name="neighbours_mask",
    short_name="neighbours_mask",
    layer=OCCLUDEE,
    target=NEIGHBOURS,
    loss_name="loss_neighbours_mask",
    weight=0.25,
    balanced_by=NEIGHBOURS,
    title="neighbours",
)


@MASK_HEAD_REGISTRY.register()
class OneStackHead(CandidateHead):
    """Eight convolutions and a decoder per map: does information about the occluder need a layer of its own?"""

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        self.stack = MaskLayer(channels, channels, num_conv=2 * num_conv, **options)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        features = self.stack(x)
        return {OCCLUDER: features, OCCLUDEE: features}


@MASK_HEAD_REGISTRY.register()
class OneStackNeighboursHead(OneStackHead):
    """Learns the neighbours too, whatever their order, as the published head does; inference has no use for them."""

    def __init__(self, channels: int, *, maps: Sequence[MapSpec] = PUBLISHED_MAPS, **options) -> None:
        super().__init__(channels, maps=[*maps, NEIGHBOURS_MASK], **options)
