"""ResNet-FPN backbones from torchvision's parts, with detectron2's numerics.

Letters: B images, H x W padded image.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet
from torchvision.models.resnet import ResNet
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from bcnet.modeling.feature_pyramid import FeaturePyramidNetwork
from bcnet.modeling.registry import BACKBONE_REGISTRY
from bcnet.modeling.resnet_checkpoints import ResNetFPNAdapter
from bcnet.ops.batch_norm import SyncBatchNorm2d
from bcnet.ops.frozen_batch_norm import FrozenBatchNorm2d, convolved_and_normalised


def _shortcut(downsample: nn.Module | None, x: Tensor) -> Tensor:
    """What a residual block adds to the output of its convolutions: the input, or its 1x1 convolution and BatchNorm."""
    if downsample is None:
        return x
    conv, norm = downsample.children()
    assert isinstance(conv, nn.Conv2d)
    return convolved_and_normalised(conv, norm, x)


class BasicBlock(torchvision_resnet.BasicBlock):
    """torchvision's BasicBlock with each frozen BatchNorm folded into its convolution."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(convolved_and_normalised(self.conv1, self.bn1, x))
        out = convolved_and_normalised(self.conv2, self.bn2, out)
        out += _shortcut(self.downsample, x)
        return self.relu(out)


class Bottleneck(torchvision_resnet.Bottleneck):
    """torchvision's Bottleneck with each frozen BatchNorm folded into its convolution."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(convolved_and_normalised(self.conv1, self.bn1, x))
        out = self.relu(convolved_and_normalised(self.conv2, self.bn2, out))
        out = convolved_and_normalised(self.conv3, self.bn3, out)
        out += _shortcut(self.downsample, x)
        return self.relu(out)


_BLOCKS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
NORMS = {"FrozenBN": FrozenBatchNorm2d, "BN": nn.BatchNorm2d, "SyncBN": SyncBatchNorm2d}


def build_resnet(
    depth: int,
    *,
    norm: str = "FrozenBN",
    groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = False,
    freeze_at: int = 0,
) -> ResNet:
    """torchvision's ResNet without its classifier.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: "FrozenBN", "BN", or "SyncBN" for batch statistics of all processes.
        groups, width_per_group: 32 and 8 make ResNeXt-101-32x8d.
        stride_in_1x1: stride in a bottleneck's first 1x1 convolution (MSRA's weights) rather than its 3x3.
        freeze_at: number of frozen stages: 0 or less none, 1 the stem, 2 the stem and res2, 5 or more all.
            Their BatchNorm is frozen too.
    """
    block, counts = _BLOCKS[depth]
    resnet = ResNet(block, list(counts), groups=groups, width_per_group=width_per_group, norm_layer=NORMS[norm])
    del resnet.avgpool, resnet.fc
    if stride_in_1x1:
        for module in resnet.modules():
            if isinstance(module, Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    stages = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    for name in (name for stage in stages[: max(freeze_at, 0)] for name in stage):
        module = getattr(resnet, name)
        module.requires_grad_(False)
        setattr(resnet, name, _freeze_batch_norm(module))
    return resnet


def _freeze_batch_norm(module: nn.Module) -> nn.Module:
    """Replaces every BatchNorm of a module by a frozen one with the same statistics."""
    if isinstance(module, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen
    for name, child in module.named_children():
        setattr(module, name, _freeze_batch_norm(child))
    return module


@BACKBONE_REGISTRY.register(name="build_resnet_fpn_backbone")
class ResNetFPN(nn.Module):
    """Feature pyramid on a ResNet that ends with P6, a subsampled P5: {"p2": [B, C, H/4, W/4], ...}, fine to coarse."""

    size_divisibility = 32
    last_level = 6
    checkpoint_adapter = ResNetFPNAdapter()

    def __init__(self, resnet: ResNet, *, in_features: Sequence[str], out_channels: int) -> None:
        """
        Args:
            resnet: of `build_resnet`.
            in_features: ("res2", "res3", "res4", "res5") or ("res3", "res4", "res5").
            out_channels: channels of every level.

        Raises:
            ValueError: other input features.
        """
        super().__init__()
        stages = [int(name.removeprefix("res")) for name in in_features if name.removeprefix("res").isdigit()]
        if stages not in ([2, 3, 4, 5], [3, 4, 5]) or len(stages) != len(in_features):
            raise ValueError(f"MODEL.FPN.IN_FEATURES must be res2..res5 or res3..res5, got {list(in_features)}")
        self.resnet = resnet
        self.stages = stages
        # torchvision leaves the last stage's channels in `inplanes`; each stage doubles them.
        channels = [resnet.inplanes // 2 ** (5 - stage) for stage in stages]
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=self.extra_levels(out_channels))
        self.out_channels = out_channels
        self.strides = {f"p{level}": 2**level for level in range(stages[0], self.last_level + 1)}

    @classmethod
    def from_config(cls, cfg) -> ResNetFPN:
        """Reads MODEL.RESNETS, MODEL.FPN and MODEL.BACKBONE.FREEZE_AT."""
        resnets = cfg.MODEL.RESNETS
        resnet = build_resnet(
            resnets.DEPTH,
            norm=resnets.NORM,
            groups=resnets.NUM_GROUPS,
            width_per_group=resnets.WIDTH_PER_GROUP,
            stride_in_1x1=resnets.STRIDE_IN_1X1,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )
        return cls(resnet, in_features=cfg.MODEL.FPN.IN_FEATURES, out_channels=cfg.MODEL.FPN.OUT_CHANNELS)

    @staticmethod
    def extra_levels(channels: int) -> ExtraFPNBlock:
        """The levels beyond P5."""
        return LastLevelMaxPool()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """From normalised images, float [B, 3, H, W] with H and W divisible by 32."""
        resnet = self.resnet
        x = resnet.maxpool(resnet.relu(convolved_and_normalised(resnet.conv1, resnet.bn1, images)))
        stages = {}
        for stage in range(2, 6):
            x = getattr(resnet, f"layer{stage - 1}")(x)
            if stage in self.stages:
                stages[f"p{stage}"] = x
        return dict(zip(self.strides, self.fpn(stages).values(), strict=True))


@BACKBONE_REGISTRY.register(name="build_bcnet_fcos_resnet_fpn_backbone")
class ResNetFPNWithP7(ResNetFPN):
    """Feature pyramid on a ResNet that ends with P6 and P7, stride-2 convolutions of P5 (FCOS)."""

    last_level = 7

    @staticmethod
    def extra_levels(channels: int) -> ExtraFPNBlock:
        return LastLevelP6P7(channels, channels)
