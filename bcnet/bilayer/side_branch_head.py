"""Mask head with a deep stack for the visible mask, and a side branch for what is in front and what is hidden.

Letters: N RoIs, C channels, S=14 pooled side, M=2S mask side, K mask classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from bcnet.bilayer.head import MaskHead
from bcnet.bilayer.layer import GraphConvolution, MaskDecoder, MaskLayer
from bcnet.maps import AMODAL, BOUNDARY, OCCLUDER, OCCLUDER_BOUNDARY, PUBLISHED_MAPS, MapSpec

# Share of the side branch's gradient that reaches the shared convolutions: the more, the better the amodal masks and
# the worse the visible ones (scores/occlusion_study_history.md, measured on forerunners).
BRANCH_GRADIENT = 0.5
BRANCH_CONVS = 1


class SideBranchMaskHead(MaskHead):
    """One deep stack for the visible mask and its boundary, and a side branch for the occluder and the amodal mask.

    Not from the BCNet paper: it was found by the comparisons of `scores/occlusion_study.md`. There its visible masks
    are about as good as those of a plain head of eight convolutions with a boundary decoder, and its other maps equal
    to the bilayer head's or better, at no more arithmetic::

        shared = shared_layer(x)
        visible = visible_layer(shared + x)
        branch = branch_layer(branch_gcn(shared + x) + visible)

    The branch's losses train ``visible_layer`` not at all and ``shared_layer`` by `BRANCH_GRADIENT` of their gradient.
    Each map is decoded by the attribute of its name: amodal masks and the maps of the occluder from ``branch``, all
    others from ``visible``. There is no map of the occluder's boundary. Where none of the branch's maps is asked for,
    the branch is not computed.
    """

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
        """
        Args:
            channels: C, of the pooled features and of all layers, whose features are added.
            num_conv: 3x3 convolutions of the shared layer; the visible one has one more.
            use_gcn: the graph convolution of the branch, with C/2 channels inside.
            maps: each with `layer` "occluder" or "occludee"; the occluder's boundary is left out.
            num_mask_classes, use_boundary, gcn_norm, freeze_gcn_norm, loss_weights: see `BilayerMaskHead`.

        Raises:
            ValueError: `num_conv` is less than 1.
        """
        if num_conv < 1:
            raise ValueError(
                "SideBranchMaskHead has num_conv convolutions (MODEL.ROI_MASK_HEAD.NUM_CONV) in its shared layer and "
                f"one more in its visible layer: at least 1, got {num_conv}"
            )
        maps = [spec for spec in maps if spec.name != OCCLUDER_BOUNDARY.name]
        super().__init__([spec for spec in maps if use_boundary or spec.kind != BOUNDARY], loss_weights)
        self.shared_layer = MaskLayer(channels, channels, num_conv=num_conv, use_gcn=False)
        self.visible_layer = MaskLayer(channels, channels, num_conv=num_conv + 1, use_gcn=False)
        norm = {"norm": gcn_norm, "freeze_norm": freeze_gcn_norm}
        self.branch_gcn = GraphConvolution(channels, inner_channels=channels // 2, **norm) if use_gcn else None
        self.branch_layer = MaskLayer(channels, channels, num_conv=BRANCH_CONVS, use_gcn=False)
        for spec in self.maps:
            self.add_module(spec.name, MaskDecoder(channels, num_mask_classes))

    def forward(self, x: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        shared = self.shared_layer(x)
        visible = self.visible_layer(shared + x)
        wanted = self.wanted(names)
        branch = self._branch(x, shared, visible) if any(map(_is_of_branch, wanted)) else visible
        return {spec.name: self.get_submodule(spec.name)(branch if _is_of_branch(spec) else visible) for spec in wanted}

    def _branch(self, x: Tensor, shared: Tensor, visible: Tensor) -> Tensor:
        # Scaled as the losses of Cascade R-CNN's stages scale their gradient to the features.
        features = BRANCH_GRADIENT * shared + (1 - BRANCH_GRADIENT) * shared.detach() + x
        if self.branch_gcn is not None:
            features = self.branch_gcn(features)
        return self.branch_layer(features + visible.detach())


def _is_of_branch(spec: MapSpec) -> bool:
    return spec.layer == OCCLUDER or spec.kind == AMODAL
