"""Small models and files of other origins for the tests of checkpoints."""

from __future__ import annotations

import copy
import functools
import math

import torch

from bcnet.config import get_cfg
from bcnet.modeling import build_model


def small_config(meta_architecture="BCNetFCOS", **changes):
    """A ResNet-18 detector of 16 channels and 3 classes; keys of `changes` have __ for the dots."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.FCOS.NORM_GROUPS = 4
    if meta_architecture == "BCNetFCOS":
        cfg.MODEL.BACKBONE.NAME = "build_bcnet_fcos_resnet_fpn_backbone"
        cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def small_model(meta_architecture="BCNetFCOS", *, seed=0, **changes):
    """A detector of `small_config` with random weights that follow from the seed."""
    torch.manual_seed(seed)
    return randomised(copy.deepcopy(_built(small_config(meta_architecture, **changes).dump())))


@functools.cache
def _built(config):
    cfg = get_cfg()
    cfg.merge_from_other_cfg(type(cfg).load_cfg(config))
    return build_model(cfg)


def randomised(model):
    """The model with every tensor drawn anew, so that no two are equal by initialisation."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand_like(tensor))
            elif tensor.is_floating_point():
                fan_in = tensor[0].numel() if tensor.ndim > 1 else 100
                bound = math.sqrt(3 / fan_in)
                tensor.uniform_(-bound, bound)
    return model.eval()


def caffe2_resnet(depth=50, *, merged, seed=0):
    """An ImageNet ResNet of bottlenecks as Caffe2 names it.

    Args:
        merged: whether the BatchNorm's statistics are merged into its scale and shift.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def add(conv, norm, out_channels, in_channels, side):
        state[f"{conv}_w"] = torch.randn(out_channels, in_channels, side, side, generator=generator)
        leaves = ("s", "b") if merged else ("gamma", "beta", "running_mean", "running_var")
        for leaf in leaves:
            state[f"{norm}_{leaf}"] = 0.5 + torch.rand(out_channels, generator=generator)

    add("conv1", "res_conv1_bn", 64, 3, 7)
    in_channels = 64
    for stage, count in enumerate({50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]):
        middle = 64 * 2**stage
        for block in range(count):
            name = f"res{stage + 2}_{block}"
            if block == 0:
                add(f"{name}_branch1", f"{name}_branch1_bn", 4 * middle, in_channels, 1)
            add(f"{name}_branch2a", f"{name}_branch2a_bn", middle, in_channels, 1)
            add(f"{name}_branch2b", f"{name}_branch2b_bn", middle, middle, 3)
            add(f"{name}_branch2c", f"{name}_branch2c_bn", 4 * middle, middle, 1)
            in_channels = 4 * middle
    state["pred_w"] = torch.zeros(1000, in_channels)
    state["pred_b"] = torch.zeros(1000)
    state["conv1_b"] = torch.zeros(64)
    return state
