"""Mask head whose visible mask lies eight convolutions deep, with a branch for what is in front and what is hidden."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from bcnet.bilayer.layer import GraphConvolution, MaskLayer
from bcnet.maps import AMODAL, OCCLUDEE, OCCLUDER
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead


@MASK_HEAD_REGISTRY.register()
class DeepVisibleHead(CandidateHead):
    """Four shared convolutions, four more for visible mask and boundary, a short branch for occluder and amodal mask.

    The amodal mask is decoded beside the occluder, not from the visible mask's features, which it would pull towards
    the whole object. The graph convolution is among the shared ones. The branch has one convolution, or two without
    graph convolution, so that the head costs no more than the published one.
    """

    front: nn.Module

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        own = {**options, "use_gcn": False}
        self.shared = MaskLayer(channels, channels, num_conv=num_conv, **options)
        self.visible = MaskLayer(channels, channels, num_conv=num_conv, **own)
        self.front = MaskLayer(channels, channels, num_conv=1 if options["use_gcn"] else 2, **own)

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
class DeepVisibleBranchGraphHead(DeepVisibleHead):
    """The same with the graph convolution at the start of the branch: the visible masks do without it."""

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        super().make_layers(channels, num_conv, {**options, "use_gcn": False})
        graph = GraphConvolution(channels, norm=options["gcn_norm"], freeze_norm=options["freeze_gcn_norm"])
        self.front = nn.Sequential(graph, MaskLayer(channels, channels, num_conv=1, use_gcn=False))
