"""Simple feature pyramid of a plain Vision Transformer (ViTDet): every level from its last, single-scale features.

Letters: B images, C channels, h x w token grid.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d


class SimpleFeaturePyramid(nn.Module):
    """Levels of one feature map by transposed convolutions and max-pooling (ViTDet paper, section 3).

    A finer level is upsampled by stride-2 transposed convolutions, each halving the channels, a coarser one is
    max-pooled; then a 1x1 and a 3x3 convolution, each with LayerNorm, give the common number of channels.
    """

    def __init__(self, in_channels: int, *, base_level: int, levels: Sequence[int], out_channels: int) -> None:
        """
        Args:
            in_channels: of the features.
            base_level: their level: their stride is 2 ** base_level pixels.
            levels: to make, fine to coarse.
            out_channels: C of every level.
        """
        super().__init__()
        self.levels = nn.ModuleDict(
            {f"p{level}": _level(in_channels, base_level - level, out_channels) for level in levels}
        )

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """From float [B, in_channels, h, w] to float [B, C, h * 2**k, w * 2**k] by level name, fine to coarse."""
        return {name: level(features) for name, level in self.levels.items()}


def _level(channels: int, doublings: int, out_channels: int) -> nn.Sequential:
    """The layers of a level with 2**doublings times the resolution of the features."""
    layers: list[nn.Module] = [nn.MaxPool2d(2) for _ in range(-doublings)]
    for doubling in range(doublings):
        if doubling:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
    return nn.Sequential(
        *layers,
        nn.Conv2d(channels, out_channels, kernel_size=1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )
