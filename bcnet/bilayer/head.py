"""The bilayer mask head, and the plain four-convolution head that it is measured against.

Letters: N RoIs, C channels, S=14 pooled side, M=2S mask side, K mask classes (1: class-agnostic).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bcnet.bilayer.layer import MaskDecoder, MaskLayer


class MaskLogits(NamedTuple):
    """Logits of a mask head, each [N, K, M, M] as predicted or [N, M, M] once a class is selected.

    Absent maps are None: the plain head has only the first, and so has an inference for masks alone.
    """

    occludee_mask: Tensor
    occludee_boundary: Tensor | None = None
    occluder_mask: Tensor | None = None
    occluder_boundary: Tensor | None = None

    def of_class(self, classes: Tensor) -> MaskLogits:
        """The maps of each RoI's class.

        Args:
            classes: int64 [N], 0..K-1; not looked at where K is 1.

        Returns:
            MaskLogits: [N, M, M] each.
        """
        if self.occludee_mask.shape[1] == 1:
            return self._map(lambda logits: logits[:, 0])
        rois = torch.arange(len(classes), device=classes.device)
        return self._map(lambda logits: logits[rois, classes])

    def float(self) -> MaskLogits:
        return self._map(Tensor.float)

    def _map(self, function) -> MaskLogits:
        return MaskLogits(*(None if logits is None else function(logits) for logits in self))


class BilayerMaskHead(nn.Module):
    """Two overlapping layers per RoI: what lies on top (occluder), and the detected instance (occludee).

    Section 3.2 of the BCNet paper, with the layout of the published code::

        occluder_features = occluder_layer(x)
        occludee_features = occludee_layer(x + occluder_features)

    Each layer's features are decoded to a mask and a boundary.
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
    ) -> None:
        """
        Args:
            channels: C, of the pooled features and of both layers: the layers are added, so they agree.
            num_conv: 3x3 convolutions of each layer.
            num_mask_classes: K, 1 for class-agnostic masks.
            use_gcn: the graph convolution after the second convolution of each layer.
            use_boundary: the two boundary decoders.
            gcn_norm: "BN", or "SyncBN" for batch statistics of all processes.
            freeze_gcn_norm: keep the statistics of the graph convolutions' BatchNorm fixed.
        """
        super().__init__()
        layer = {
            "num_conv": num_conv,
            "use_gcn": use_gcn,
            "gcn_norm": gcn_norm,
            "freeze_gcn_norm": freeze_gcn_norm,
        }
        self.occluder_layer = MaskLayer(channels, channels, **layer)
        self.occludee_layer = MaskLayer(channels, channels, **layer)
        self.occluder_mask = MaskDecoder(channels, num_mask_classes)
        self.occludee_mask = MaskDecoder(channels, num_mask_classes)
        self.occluder_boundary = MaskDecoder(channels, num_mask_classes) if use_boundary else None
        self.occludee_boundary = MaskDecoder(channels, num_mask_classes) if use_boundary else None

    def forward(self, x: Tensor, *, masks_only: bool = False) -> MaskLogits:
        """
        Args:
            x: float [N, C, S, S], pooled features; N may be 0.
            masks_only: decode the occludee's mask alone and leave the other three maps out.

        Returns:
            MaskLogits: [N, K, M, M] each.
        """
        occluder = self.occluder_layer(x)
        occludee = self.occludee_layer(x + occluder)
        mask = self.occludee_mask(occludee)
        if masks_only:
            return MaskLogits(mask)
        return MaskLogits(
            occludee_mask=mask,
            occludee_boundary=self.occludee_boundary(occludee) if self.occludee_boundary else None,
            occluder_mask=self.occluder_mask(occluder),
            occluder_boundary=self.occluder_boundary(occluder) if self.occluder_boundary else None,
        )


class PlainMaskHead(nn.Module):
    """Mask R-CNN's head: convolutions and one decoder (detectron2's MaskRCNNConvUpsampleHead)."""

    def __init__(self, in_channels: int, channels: int, *, num_conv: int = 4, num_mask_classes: int = 1) -> None:
        super().__init__()
        self.layer = MaskLayer(in_channels, channels, num_conv=num_conv, use_gcn=False)
        self.mask = MaskDecoder(channels, num_mask_classes)

    def forward(self, x: Tensor, *, masks_only: bool = False) -> MaskLogits:
        """Float [N, C_in, S, S] to logits [N, K, M, M]; `masks_only` changes nothing here."""
        return MaskLogits(self.mask(self.layer(x)))
