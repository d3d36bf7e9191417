"""Mask heads whose visible mask lies eight convolutions deep, with a branch for what is in front and what is hidden."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from bcnet.bilayer.layer import MaskLayer
from bcnet.maps import AMODAL, OCCLUDEE, OCCLUDER
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead
from studies.candidates.neighbours import LearnsNeighbours


@MASK_HEAD_REGISTRY.register()
class DeepVisibleHead(CandidateHead):
    """Four shared convolutions, four more for visible mask and boundary, and two for occluder and amodal mask.

    The amodal mask is decoded beside the occluder, not from the visible mask's features, which it would pull towards
    the whole object. There is no graph convolution. Masks alone cost as much as the plain head of eight convolutions.
    """

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        options = {**options, "use_gcn": False}
        self.shared = MaskLayer(channels, channels, num_conv=num_conv, **options)
        self.visible = MaskLayer(channels, channels, num_conv=num_conv, **options)
        self.front = MaskLayer(channels, channels, num_conv=max(num_conv // 2, 1), **options)

    def forward(self, x: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        shared = self.shared(x)
        wanted = self.wanted(names)
        in_front = [spec for spec in wanted if spec.layer == OCCLUDER or spec.kind == AMODAL]
        features = {OCCLUDEE: self.visible(shared) if len(in_front) < len(wanted) else None}
        features[OCCLUDER] = self.front(shared) if in_front else None
        return {
            spec.name: self.decoders[spec.name](features[OCCLUDER if spec in in_front else OCCLUDEE]) for spec in wanted
        }


@MASK_HEAD_REGISTRY.register()
class DeepVisibleNeighboursHead(LearnsNeighbours, DeepVisibleHead):
    """`DeepVisibleHead` that learns the neighbours too."""
