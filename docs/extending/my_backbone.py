"""A backbone: a feature pyramid on one of torchvision's ImageNet classifiers."""

from torch import nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from bcnet.config import register_config
from bcnet.modeling import BACKBONE_REGISTRY


@register_config
def add_trunk_config(cfg):
    cfg.MODEL.TRUNK = type(cfg)()
    cfg.MODEL.TRUNK.NAME = "mobilenet_v3_small"
    cfg.MODEL.TRUNK.PRETRAINED = False  # ImageNet's weights; torchvision downloads them
    cfg.MODEL.TRUNK.LAYERS = ["features.1", "features.3", "features.8", "features.12"]  # strides 4, 8, 16, 32
    cfg.MODEL.TRUNK.CHANNELS = [16, 24, 48, 576]  # of these layers


@BACKBONE_REGISTRY.register()
class TorchvisionFPN(nn.Module):
    """Levels p2..p5 of a trunk, and p6, a subsampled p5."""

    size_divisibility = 32

    def __init__(self, name, *, pretrained, layers, channels, out_channels):
        super().__init__()
        self.strides = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
        self.out_channels = out_channels
        trunk = get_model(name, weights="DEFAULT" if pretrained else None)
        levels = dict(zip(layers, self.strides, strict=False))
        self.trunk = create_feature_extractor(trunk, levels)
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=LastLevelMaxPool())

    @classmethod
    def from_config(cls, cfg):
        trunk = cfg.MODEL.TRUNK
        return cls(
            trunk.NAME,
            pretrained=trunk.PRETRAINED,
            layers=trunk.LAYERS,
            channels=trunk.CHANNELS,
            out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        )

    def forward(self, images):
        """From float [B, 3, H, W] to features by level name, float [B, C, H / stride, W / stride]."""
        levels = self.fpn(self.trunk(images))
        return dict(zip(self.strides, levels.values(), strict=True))
