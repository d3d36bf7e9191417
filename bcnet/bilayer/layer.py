"""Building blocks of a mask head: convolution layer, non-local graph convolution (GCN), and deconvolution decoder.

Letters: N RoIs, C channels, S pooled side, M = 2S mask side, K mask classes (1: class-agnostic).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bcnet.ops.batch_norm import BatchNorm2d, SyncBatchNorm2d

GCN_NORMS = {"BN": BatchNorm2d, "SyncBN": SyncBatchNorm2d}


def _msra_fill(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    # What Caffe2 and detectron2 call MSRA fill.
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    _zero_bias(conv)


def _zero_bias(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class GraphConvolution(nn.Module):
    """Non-local graph convolution over the S x S nodes of an RoI, added to its input.

    ``x + norm(output(softmax(q k^T / sqrt(c)) v))``, c channels in q, with bias-free 1x1 convolutions: section 3.2,
    equation 1 of the BCNet paper; the BatchNorm (eps 1e-4) is the published code's.
    """

    def __init__(
        self, channels: int, *, inner_channels: int | None = None, norm: str = "BN", freeze_norm: bool = False
    ) -> None:
        """
        Args:
            channels: C, of the input and the output.
            inner_channels: of query, key and value; None takes C, as the published code. Half of C is the bottleneck
                of non-local networks (Wang et al., CVPR 2018).
            norm: "BN", or "SyncBN" for batch statistics of all processes.
            freeze_norm: keep the BatchNorm in eval mode: batch statistics are neither used nor updated.

        Raises:
            ValueError: another `norm`.
        """
        super().__init__()
        if norm not in GCN_NORMS:
            raise ValueError(f"the norm of the graph convolution must be one of {', '.join(GCN_NORMS)}, got {norm!r}")
        inner = channels if inner_channels is None else inner_channels
        self.query = nn.Conv2d(channels, inner, kernel_size=1, bias=False)
        self.key = nn.Conv2d(channels, inner, kernel_size=1, bias=False)
        self.value = nn.Conv2d(channels, inner, kernel_size=1, bias=False)
        self.output = nn.Conv2d(inner, channels, kernel_size=1, bias=False)
        self.norm = GCN_NORMS[norm](channels, eps=1e-4)
        self.freeze_norm = freeze_norm
        for conv in (self.query, self.key, self.value, self.output):
            _msra_fill(conv)

    def train(self, mode: bool = True) -> GraphConvolution:
        super().train(mode)
        if self.freeze_norm:
            self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C, S, S] to the same shape; N = 0 is allowed and leaves the BatchNorm's statistics unchanged."""
        rois, _, height, width = x.shape
        # Contiguous: attention on transposed views is half as fast on the CPU. Not `flatten`: its ONNX fails for N = 0.
        query, key, value = (
            projection(x).reshape(rois, projection.out_channels, height * width).transpose(1, 2)[:, None].contiguous()
            for projection in (self.query, self.key, self.value)
        )
        # Affinities reach 1e5, beyond the range of fp16: the fused kernels compute them and the softmax in fp32.
        related = F.scaled_dot_product_attention(query, key, value)[:, 0]
        related = self.output(related.transpose(1, 2).reshape(rois, self.output.in_channels, height, width))
        if self.norm.training and len(x) == 0 and not getattr(self.norm, "is_synchronized", False):
            # In training BatchNorm raises on an empty batch; its parameters must stay in the graph for DDP.
            return x + related * (self.norm.weight.sum() + self.norm.bias.sum())
        return x + self.norm(related)


class MaskLayer(nn.Module):
    """A stack of 3x3 convolutions with ReLU, and a graph convolution after the second: one layer of the bilayer."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_conv: int = 4,
        use_gcn: bool = True,
        gcn_norm: str = "BN",
        freeze_gcn_norm: bool = False,
    ) -> None:
        """
        Raises:
            ValueError: `use_gcn` with fewer than two convolutions.
        """
        super().__init__()
        if use_gcn and num_conv < 2:
            raise ValueError(
                f"the graph convolution follows the second of num_conv convolutions, got num_conv={num_conv}"
            )
        convs = [
            nn.Conv2d(in_channels if i == 0 else channels, channels, kernel_size=3, padding=1) for i in range(num_conv)
        ]
        self.convs = nn.ModuleList(convs)
        self.gcn = GraphConvolution(channels, norm=gcn_norm, freeze_norm=freeze_gcn_norm) if use_gcn else None
        for conv in convs:
            _msra_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, C_in, S, S] to [N, C, S, S]."""
        for i, conv in enumerate(self.convs):
            x = F.relu(conv(x), inplace=True)
            if i == 1 and self.gcn is not None:
                x = self.gcn(x)
        return x


class MaskDecoder(nn.Module):
    """A 2x2 stride-2 deconvolution with ReLU and a 1x1 predictor: features to logits of twice the side."""

    def __init__(self, channels: int, num_classes: int) -> None:
        """
        Raises:
            ValueError: `num_classes`, K, is less than 1.
        """
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a mask head has masks of at least 1 class (num_mask_classes), got {num_classes}")
        self.deconv = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.predictor = nn.Conv2d(channels, num_classes, kernel_size=1)
        _msra_fill(self.deconv)
        nn.init.normal_(self.predictor.weight, std=0.001)
        _zero_bias(self.predictor)

    def forward(self, features: Tensor) -> Tensor:
        """Float [N, C, S, S] to logits [N, K, M, M]."""
        return self.predictor(F.relu(self.deconv(features), inplace=True))
