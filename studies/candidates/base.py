"""Base of the candidates: a decoder for each map on the features of its layer.

Letters: N RoIs, C channels, S pooled side, M mask side, K mask classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from bcnet.bilayer import MaskHead
from bcnet.bilayer.layer import MaskDecoder
from bcnet.maps import BOUNDARY, PUBLISHED_MAPS, MapSpec
from bcnet.modeling.mask_heads import bilayer_keywords


class CandidateHead(MaskHead):
    """A mask head with the maps of the bilayer head. A subclass makes its layers and implements `features`."""

    def __init__(
        self,
        channels: int,
        *,
        num_conv: int = 4,
        num_mask_classes: int = 1,
        use_gcn: bool = True,
        use_boundary: bool = True,
        gcn_norm: str = "BN",
        freeze_gcn_norm: bool = False,
        maps: Sequence[MapSpec] = PUBLISHED_MAPS,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        """The arguments of `bcnet.bilayer.BilayerMaskHead`; a candidate has 2 x `num_conv` convolutions in all."""
        super().__init__([spec for spec in maps if use_boundary or spec.kind != BOUNDARY], loss_weights)
        options = {"use_gcn": use_gcn, "gcn_norm": gcn_norm, "freeze_gcn_norm": freeze_gcn_norm}
        self.make_layers(channels, num_conv, options)
        self.decoders = nn.ModuleDict({spec.name: MaskDecoder(channels, num_mask_classes) for spec in self.maps})

    @classmethod
    def from_config(cls, cfg, in_channels: int) -> CandidateHead:
        """Reads MODEL.ROI_MASK_HEAD and MODEL.BILAYER, as the bilayer head does."""
        return cls(in_channels, **bilayer_keywords(cfg, in_channels))

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        """Makes the modules of `features`; the options are keywords of `bcnet.bilayer.layer.MaskLayer`."""
        raise NotImplementedError

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Pooled features [N, C, S, S] to those that the maps of "occluder" and "occludee" are decoded from."""
        raise NotImplementedError

    def forward(self, x: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        features = self.features(x)
        return {spec.name: self.decoders[spec.name](features[spec.layer]) for spec in self.wanted(names)}
