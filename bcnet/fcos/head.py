"""FCOS head: classification, box regression and centerness, shared by all pyramid levels.

Letters: B images, C channels, K classes, L levels, P points of all levels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FCOSOutput(NamedTuple):
    """Predictions at the P points of all levels, fine levels first, each row by row.

    Attributes:
        logits: float32 [B, P, K], class logits.
        distances: float32 [B, P, 4], left, top, right, bottom in strides of the point's level, >= 0.
        centerness: float32 [B, P], logits.
    """

    logits: Tensor
    distances: Tensor
    centerness: Tensor


class FCOSHead(nn.Module):
    """Two towers of 3x3 convolutions with GroupNorm; centerness sits on the regression tower.

    FCOS (Tian et al., ICCV 2019) with the improvements of its later version, as BCNet's published code uses it.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        num_levels: int,
        num_conv: int,
        norm_groups: int,
        prior_prob: float,
    ) -> None:
        """
        Args:
            channels: C of every level.
            num_classes: K.
            num_levels: L, each with its own learnable scale of the distances.
            num_conv: convolutions per tower.
            norm_groups: groups of the towers' GroupNorm; must divide `channels`.
            prior_prob: initial class probability everywhere, for a stable focal loss at the start.
        """
        super().__init__()
        self.cls_tower = self._tower(channels, num_conv, norm_groups)
        self.box_tower = self._tower(channels, num_conv, norm_groups)
        self.cls_logits = nn.Conv2d(channels, num_classes, kernel_size=3, padding=1)
        self.distances = nn.Conv2d(channels, 4, kernel_size=3, padding=1)
        self.centerness = nn.Conv2d(channels, 1, kernel_size=3, padding=1)
        self.scales = nn.ParameterList(torch.ones(1) for _ in range(num_levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.get_parameter("bias"))
        nn.init.constant_(self.cls_logits.get_parameter("bias"), -math.log((1 - prior_prob) / prior_prob))

    @staticmethod
    def _tower(channels: int, num_conv: int, norm_groups: int) -> nn.Sequential:
        layers = []
        for _ in range(num_conv):
            conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
            layers += [conv, nn.GroupNorm(norm_groups, channels), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, features: list[Tensor]) -> FCOSOutput:
        """From L feature maps [B, C, H_l, W_l], fine to coarse."""
        logits, distances, centerness = [], [], []
        for feature, scale in zip(features, self.scales, strict=True):
            box_features = self.box_tower(feature)
            logits.append(_flatten_points(self.cls_logits(self.cls_tower(feature))))
            distances.append(_flatten_points(F.relu(scale * self.distances(box_features))))
            centerness.append(_flatten_points(self.centerness(box_features)))
        return FCOSOutput(
            torch.cat(logits, dim=1).float(),
            torch.cat(distances, dim=1).float(),
            torch.cat(centerness, dim=1)[..., 0].float(),
        )


def _flatten_points(values: Tensor) -> Tensor:
    """[B, D, H, W] to [B, H * W, D]."""
    return values.flatten(2).transpose(1, 2)
