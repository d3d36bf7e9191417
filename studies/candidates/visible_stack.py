"""Control for `bcnet.bilayer.SideBranchMaskHead`: its visible stack without the branch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bcnet.bilayer.layer import MaskLayer
from bcnet.maps import AMODAL, OCCLUDEE, PUBLISHED_MAPS, MapSpec
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead


@MASK_HEAD_REGISTRY.register()
class VisibleStackHead(CandidateHead):
    """Nine convolutions, the last five of which read the pooled features too, and no map but visible mask and boundary:
    do the side branch's losses help or harm the visible masks?"""

    def __init__(self, channels: int, *, maps: Sequence[MapSpec] = PUBLISHED_MAPS, **options) -> None:
        maps = [spec for spec in maps if spec.layer == OCCLUDEE and spec.kind != AMODAL]
        super().__init__(channels, maps=maps, **options)

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        self.shared = MaskLayer(channels, channels, num_conv=num_conv, use_gcn=False)
        self.visible = MaskLayer(channels, channels, num_conv=num_conv + 1, use_gcn=False)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        return {OCCLUDEE: self.visible(self.shared(x) + x)}
