"""Mask heads: base class, BCNet's bilayer head, and the plain Mask R-CNN head as its baseline.

Letters: N RoIs, C channels, S=14 pooled side, M=2S mask side, K mask classes (1: class-agnostic).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from bcnet.bilayer.layer import MaskDecoder, MaskLayer
from bcnet.bilayer.losses import mask_losses
from bcnet.bilayer.targets import MapTarget, map_targets
from bcnet.maps import (
    BOUNDARY,
    OCCLUDEE,
    OCCLUDEE_BOUNDARY,
    OCCLUDEE_MASK,
    OCCLUDER,
    PUBLISHED_MAPS,
    MapSpec,
    with_weights,
)


class MaskHead(nn.Module):
    """Base of the mask heads: declares maps, predicts their logits by name, and computes their losses.

    A subclass implements `forward`. Override `losses` to add a term that couples several maps.

    Attributes:
        maps: the maps that the head predicts, with their loss weights.
    """

    def __init__(self, maps: Sequence[MapSpec], loss_weights: Mapping[str, float] | None = None) -> None:
        """
        Args:
            maps: what the head predicts.
            loss_weights: by map name; maps that are not named keep the weight of their record.
        """
        super().__init__()
        self.maps = with_weights(maps, loss_weights or {})

    def forward(self, x: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """
        Args:
            x: float [N, C, S, S], pooled features; N may be 0.
            names: the maps to compute; None computes all. Decoders of other maps are not run.

        Returns:
            dict: logits [N, K, M, M] by map name, in the order of `maps`.
        """
        raise NotImplementedError

    def wanted(self, names: Collection[str] | None) -> list[MapSpec]:
        """The maps of these names, in the order of `maps`; None wants all. For `forward`."""
        return [spec for spec in self.maps if names is None or spec.name in names]

    def losses(
        self, logits: Mapping[str, Tensor], layers: Mapping[str, MapTarget], *, negative_ratio: float = 1.0
    ) -> dict[str, Tensor]:
        """The losses by name.

        Args:
            logits: [N, M, M] by map name, of each RoI's class.
            layers: crops of the instance masks by layer, see `bcnet.bilayer.crop_layers`.
            negative_ratio: see `bcnet.bilayer.balanced_rois`.

        Raises:
            ValueError: `logits` lack a map of the head.
        """
        missing = [spec.name for spec in self.maps if spec.name not in logits]
        if missing:
            raise ValueError(
                f"{type(self).__name__} declares the maps {', '.join(spec.name for spec in self.maps)}, but its "
                f"forward pass returned no logits of {', '.join(missing)}"
            )
        return mask_losses(self.maps, logits, map_targets(self.maps, layers), layers, negative_ratio=negative_ratio)


def select_class(logits: Mapping[str, Tensor], classes: Tensor) -> dict[str, Tensor]:
    """The maps of each RoI's class.

    Args:
        logits: [N, K, M, M] by map name.
        classes: int64 [N], 0..K-1; not used for maps with K = 1.

    Returns:
        dict: [N, M, M] by map name.
    """
    rois = torch.arange(classes.shape[0], device=classes.device)  # not `len`, which a trace would fix
    return {name: values[:, 0] if values.shape[1] == 1 else values[rois, classes] for name, values in logits.items()}


class BilayerMaskHead(MaskHead):
    """Two overlapping layers per RoI: the occluder above, and the occludee, the detected instance, below.

    Section 3.2 of the BCNet paper, with the layout of the published code::

        occluder_features = occluder_layer(x)
        occludee_features = occludee_layer(x + occluder_features)

    Each map is decoded from the features of its layer; the decoder is the attribute of the map's name.
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
            channels: C, of the pooled features and of both layers, whose features are added.
            num_conv: 3x3 convolutions of each layer.
            num_mask_classes: K, 1 for class-agnostic masks.
            use_gcn: the graph convolution after the second convolution of each layer.
            use_boundary: False omits the maps of kind "boundary".
            gcn_norm: "BN", or "SyncBN" for batch statistics of all processes.
            freeze_gcn_norm: keep the statistics of the graph convolutions' BatchNorm fixed.
            maps: each with `layer` "occluder" or "occludee".
            loss_weights: see `MaskHead`.
        """
        super().__init__([spec for spec in maps if use_boundary or spec.kind != BOUNDARY], loss_weights)
        layer = {
            "num_conv": num_conv,
            "use_gcn": use_gcn,
            "gcn_norm": gcn_norm,
            "freeze_gcn_norm": freeze_gcn_norm,
        }
        self.occluder_layer = MaskLayer(channels, channels, **layer)
        self.occludee_layer = MaskLayer(channels, channels, **layer)
        # The order of creation determines the random initialisation: the published code's order, then further maps.
        for spec in sorted(self.maps, key=_published_order):
            self.add_module(spec.name, MaskDecoder(channels, num_mask_classes))

    def forward(self, x: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        occluder = self.occluder_layer(x)
        features = {OCCLUDER: occluder, OCCLUDEE: self.occludee_layer(x + occluder)}
        return {spec.name: self.get_submodule(spec.name)(features[spec.layer]) for spec in self.wanted(names)}


def _published_order(spec: MapSpec) -> int:
    order = ("occluder_mask", "occludee_mask", "occluder_boundary", "occludee_boundary")
    return order.index(spec.name) if spec.name in order else len(order)


class PlainMaskHead(MaskHead):
    """Mask R-CNN's head: convolutions and one decoder (detectron2's MaskRCNNConvUpsampleHead).

    With `use_boundary` a second decoder predicts the boundary from the same features: one layer with a boundary branch,
    the control for the bilayer head's second layer. It has no fusion between the branches as BMask R-CNN has.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_conv: int = 4,
        num_mask_classes: int = 1,
        use_boundary: bool = False,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        """
        Args:
            in_channels: C of the pooled features.
            channels: of the convolutions.
            use_boundary: a second decoder for the boundary of the mask.
            num_conv, num_mask_classes, loss_weights: as for `BilayerMaskHead`.
        """
        super().__init__((OCCLUDEE_MASK, OCCLUDEE_BOUNDARY) if use_boundary else (OCCLUDEE_MASK,), loss_weights)
        self.layer = MaskLayer(in_channels, channels, num_conv=num_conv, use_gcn=False)
        self.mask = MaskDecoder(channels, num_mask_classes)
        if use_boundary:
            self.boundary = MaskDecoder(channels, num_mask_classes)

    def forward(self, x: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        features = self.layer(x)
        return {
            spec.name: (self.boundary if spec.kind == BOUNDARY else self.mask)(features) for spec in self.wanted(names)
        }
