"""timm classifiers as trunks of a backbone: creation by name, feature stages, BatchNorm and frozen stages.

timm is imported where it is used, so that bcnet works without it.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Collection, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor, nn

from bcnet.ops.batch_norm import SyncBatchNorm2d
from bcnet.ops.frozen_batch_norm import FrozenBatchNorm2d

STRIDES = (4, 8, 16, 32)  # of the stages res2..res5, in pixels
# Arguments that let a classifier take images of any size, by timm version and model; the first accepted one is used.
_ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


class Stage(NamedTuple):
    """One of the four stages of a trunk, res2 to res5.

    Attributes:
        index: of its features among those of timm's `forward_intermediates`.
        channels: of its features.
        stride: of its features in pixels; of a plain ViT the patch side, which all stages share.
    """

    index: int
    channels: int
    stride: int


def import_timm() -> ModuleType:
    """The package timm.

    Raises:
        ImportError: it is not installed; says how to install it.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError("timm backbones need the package timm: pip install 'bcnet[backbones]'") from error
    return timm


def check_name(name: str) -> None:
    """
    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or no such weights of it (after the dot); lists near matches.
    """
    timm = import_timm()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        advice = f"; near matches: {', '.join(near)}" if near else "; timm.list_models() lists the names"
        raise ValueError(f"MODEL.TIMM.NAME is {name!r}; timm {timm.__version__} has no such model{advice}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"MODEL.TIMM.NAME is {name!r}; timm {timm.__version__} has the weights {', '.join(tags) or 'none'} of "
            f"{architecture}"
        )


def pixel_statistics(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, 0..255, R, G and B, of timm's data config for a model.

    Raises:
        ImportError, ValueError: as `check_name`.
    """
    check_name(name)
    timm = import_timm()
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    mean, std = ([round(255 * value, 4) for value in config[key]] for key in ("mean", "std"))
    return mean, std


def create_trunk(name: str, *, drop_path: float = 0.0) -> tuple[nn.Module, list[Stage]]:
    """A classifier without its head, randomly initialised, and its four stages.

    Stages are the features of strides 4, 8, 16 and 32. A plain ViT has one stride; its stages are quarters of its
    blocks.

    Args:
        name: of timm, with or without the name of weights after a dot.
        drop_path: probability of stochastic depth in training, 0..1.

    Raises:
        ImportError, ValueError: as `check_name`; or a model that gives no features, has other strides, or takes images
            of one size only.
    """
    check_name(name)
    timm = import_timm()
    keywords = {"num_classes": 0, **({"drop_path_rate": drop_path} if drop_path > 0 else {})}
    for any_size in _ANY_SIZE:
        try:
            trunk = timm.create_model(name, **keywords, **any_size)
            break
        except TypeError as error:
            if "drop_path_rate" in str(error):
                raise ValueError(
                    f"MODEL.TIMM.DROP_PATH is {drop_path}, and timm's {name} has no stochastic depth: set it to 0"
                ) from error
            if not any_size:
                raise
    if not hasattr(trunk, "forward_intermediates") or not hasattr(trunk, "prune_intermediate_layers"):
        raise ValueError(f"MODEL.TIMM.NAME is {name!r}, which gives no features of its stages in timm")
    if trunk.pretrained_cfg.get("fixed_input_size") and not any_size:
        _, height, width = trunk.pretrained_cfg["input_size"]
        raise ValueError(f"MODEL.TIMM.NAME is {name!r}, which takes images of {height} x {width} pixels only")
    stages = _stages(name, trunk)
    trunk.prune_intermediate_layers([stage.index for stage in stages], prune_norm=True, prune_head=True)
    return trunk, stages


def _stages(name: str, trunk: nn.Module) -> list[Stage]:
    info: Any = trunk.feature_info
    info = getattr(info, "info", info)
    found = [Stage(i, entry["num_chs"], entry["reduction"]) for i, entry in enumerate(info)]
    if len({stage.stride for stage in found}) == 1 and len(found) >= len(STRIDES):
        last = [-(-len(found) * quarter // len(STRIDES)) - 1 for quarter in range(1, len(STRIDES) + 1)]
        return [found[index] for index in last]
    by_stride = {stage.stride: stage for stage in found}  # the last one of each stride
    if not set(STRIDES) <= by_stride.keys():
        raise ValueError(
            f"MODEL.TIMM.NAME is {name!r}, whose features have the strides {sorted(by_stride)}; a feature pyramid "
            f"needs {', '.join(map(str, STRIDES))}, or one stride of a plain ViT"
        )
    return [by_stride[stride] for stride in STRIDES]


def stage_features(trunk: nn.Module, images: Tensor, stages: Sequence[Stage]) -> list[Tensor]:
    """The features of some stages: float [B, channels, H / stride, W / stride] each, of models of NHWC layout too."""
    return trunk.forward_intermediates(  # type: ignore[operator]
        images, indices=[stage.index for stage in stages], output_fmt="NCHW", intermediates_only=True
    )


# -- BatchNorm and frozen stages -----------------------------------------------------------------------------


class _WithActivation(nn.Module):
    """What timm's `BatchNormAct2d` adds to a BatchNorm, which follows it in the order of base classes."""

    def _take_over(self, norm: nn.BatchNorm2d) -> None:
        """Takes the tensors and the activation of timm's."""
        self.load_state_dict(norm.state_dict())
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class SyncBatchNormAct2d(_WithActivation, SyncBatchNorm2d):
    """`BatchNormAct2d` with the joint statistics of all processes."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)
        self._take_over(norm)


class FrozenBatchNormAct2d(_WithActivation, FrozenBatchNorm2d):
    """`BatchNormAct2d` with fixed statistics and affine parameters."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps)
        self._take_over(norm)


def convert_batch_norm(trunk: nn.Module, norm: str) -> nn.Module:
    """Gives every BatchNorm of a trunk the kind "FrozenBN", "BN" (as it is) or "SyncBN"; names of tensors stay."""
    if norm == "BN":
        return trunk
    return _replace_batch_norm(trunk, SyncBatchNormAct2d if norm == "SyncBN" else FrozenBatchNormAct2d)


def _replace_batch_norm(
    module: nn.Module, replace: Callable[[nn.BatchNorm2d], nn.Module], where: Collection[str] | None = None
) -> nn.Module:
    """Replaces BatchNorm layers in place; with `where`, only those whose weight has one of these names."""
    for name, child in list(module.named_modules()):
        if not isinstance(child, nn.BatchNorm2d) or (where is not None and f"{name}.weight" not in where):
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, replace(child))
    return module


def freeze_stages(trunk: nn.Module, stages: Sequence[Stage], freeze_at: int) -> None:
    """Freezes the first stages of a trunk with their BatchNorm, in place.

    Args:
        freeze_at: 0 or less none, 1 the stem (embeddings of a ViT), 2 all that the features of res2 depend on, ...,
            5 or more everything.
    """
    if freeze_at <= 0:
        return
    from timm.models import group_parameters

    names: set[str] = set(group_parameters(trunk, trunk.group_matcher(coarse=True)).get(0, ()))  # type: ignore[operator]
    if freeze_at >= 2:
        stage = stages[min(freeze_at - 2, len(stages) - 1)]
        needed = copy.deepcopy(trunk)
        needed.prune_intermediate_layers([stage.index], prune_norm=True, prune_head=True)  # type: ignore[operator]
        names |= {name for name, _ in needed.named_parameters()}
    for name, parameter in trunk.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    _replace_batch_norm(trunk, FrozenBatchNormAct2d, names)
