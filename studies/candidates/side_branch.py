"""Mask heads with a plain head's visible masks, and a branch beside them for what is in front and what is hidden.

Forerunners of `bcnet.bilayer.SideBranchMaskHead`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from bcnet.bilayer.layer import GraphConvolution, MaskLayer
from bcnet.maps import AMODAL, BOUNDARY, OCCLUDEE, OCCLUDER, PUBLISHED_MAPS, MapSpec
from bcnet.modeling import MASK_HEAD_REGISTRY
from studies.candidates.base import CandidateHead


@MASK_HEAD_REGISTRY.register()
class SideBranchHead(CandidateHead):
    """Eight convolutions for visible mask and boundary; a graph convolution and one convolution for all other maps.

    The branch takes the features after the fourth convolution and those that the visible mask is decoded from, which
    say where the instance is seen: ``conv(graph(shared) + visible)``. Its losses do not train the last four
    convolutions, and the first four by `gradient_scale` of their gradient: the more, the better the amodal mask, and
    the worse the visible one. Without graph convolution the branch has two convolutions.
    """

    gradient_scale = 1.0
    front_convs = 1  # of the branch, after its graph convolution
    bottleneck = 1  # divisor of the channels inside the graph convolution
    more_shared = more_visible = 0  # convolutions of the layer beside num_conv
    pooled_to_branch = pooled_to_visible = False  # the layer reads the pooled features too
    residual = False  # around the branch's convolutions

    def make_layers(self, channels: int, num_conv: int, options: dict) -> None:
        self.shared = MaskLayer(channels, channels, num_conv=num_conv + self.more_shared, use_gcn=False)
        self.visible = MaskLayer(channels, channels, num_conv=num_conv + self.more_visible, use_gcn=False)
        norm = {"norm": options["gcn_norm"], "freeze_norm": options["freeze_gcn_norm"]}
        inner = channels // self.bottleneck
        self.graph = GraphConvolution(channels, inner_channels=inner, **norm) if options["use_gcn"] else None
        num_front = self.front_convs if options["use_gcn"] else 2
        self.front = MaskLayer(channels, channels, num_conv=num_front, use_gcn=False)

    def forward(self, x: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        shared = self.shared(x)
        visible = self.visible(shared + x if self.pooled_to_visible else shared)
        wanted = self.wanted(names)
        in_front = [spec for spec in wanted if spec.layer == OCCLUDER or spec.kind == AMODAL]
        features = {OCCLUDEE: visible}
        if in_front:
            branch = _scale_gradient(shared, self.gradient_scale)
            branch = branch + x if self.pooled_to_branch else branch
            branch = (branch if self.graph is None else self.graph(branch)) + visible.detach()
            features[OCCLUDER] = self.front(branch) + branch if self.residual else self.front(branch)
        return {
            spec.name: self.decoders[spec.name](features[OCCLUDER if spec in in_front else OCCLUDEE]) for spec in wanted
        }


def _scale_gradient(x: Tensor, scale: float) -> Tensor:
    """`x`, through which gradients pass multiplied by `scale`, as in Cascade R-CNN's training."""
    return x if scale == 1 else scale * x + (1 - scale) * x.detach()


@MASK_HEAD_REGISTRY.register()
class SideBranchHalfHead(SideBranchHead):
    """With half of the branch's gradient to the shared convolutions."""

    gradient_scale = 0.5


@MASK_HEAD_REGISTRY.register()
class SideBranchQuarterHead(SideBranchHead):
    """With a quarter of the branch's gradient to the shared convolutions."""

    gradient_scale = 0.25


@MASK_HEAD_REGISTRY.register()
class SideBranchDetachedHead(SideBranchHead):
    """The branch trains nothing but itself."""

    gradient_scale = 0.0


@MASK_HEAD_REGISTRY.register()
class DeepSideBranchHead(SideBranchHead):
    """A branch of two convolutions at the same arithmetic: half of the channels in its graph convolution, as non-local
    networks have it, and no boundary map of the occluder."""

    gradient_scale = 0.25
    front_convs = 2
    bottleneck = 2

    def __init__(self, channels: int, *, maps: Sequence[MapSpec] = PUBLISHED_MAPS, **options) -> None:
        maps = [spec for spec in maps if (spec.layer, spec.kind) != (OCCLUDER, BOUNDARY)]
        super().__init__(channels, maps=maps, **options)


@MASK_HEAD_REGISTRY.register()
class DeepSideBranchHalfHead(DeepSideBranchHead):
    """With half of the branch's gradient to the shared convolutions."""

    gradient_scale = 0.5


@MASK_HEAD_REGISTRY.register()
class PooledSideBranchHead(DeepSideBranchHead):
    """The branch reads the pooled features too: the earlier form of `bcnet.bilayer.SideBranchMaskHead`."""

    pooled_to_branch = True


@MASK_HEAD_REGISTRY.register()
class PooledVisibleHead(PooledSideBranchHead):
    """The last four convolutions read them too."""

    pooled_to_visible = True


@MASK_HEAD_REGISTRY.register()
class NinthHead(PooledSideBranchHead):
    """One convolution of the branch moves to the visible mask: nine for it, at the same arithmetic for all maps."""

    more_visible = 1
    front_convs = 1


@MASK_HEAD_REGISTRY.register()
class NinthSharedHead(PooledSideBranchHead):
    """It moves to the shared convolutions."""

    more_shared = 1
    front_convs = 1


@MASK_HEAD_REGISTRY.register()
class TenthHead(PooledSideBranchHead):
    """Both convolutions of the branch move, one to each; half of the branch's gradient."""

    gradient_scale = 0.5
    more_shared = more_visible = 1
    front_convs = 0


@MASK_HEAD_REGISTRY.register()
class NinthPooledHead(NinthHead):
    """`NinthHead` with the pooled features as a further input of the last five convolutions."""

    pooled_to_visible = True


@MASK_HEAD_REGISTRY.register()
class NinthPooledHalfHead(NinthPooledHead):
    """With half of the branch's gradient: what became `bcnet.bilayer.SideBranchMaskHead`."""

    gradient_scale = 0.5


@MASK_HEAD_REGISTRY.register()
class NinthPooledResidualHead(NinthPooledHead):
    """A residual connection around the branch's convolution."""

    residual = True


@MASK_HEAD_REGISTRY.register()
class NinthPooledResidualHalfHead(NinthPooledHalfHead):
    """The same with half of the gradient."""

    residual = True
