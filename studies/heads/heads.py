"""Many mask heads on one trunk: the same RoIs for all, each trained by its own loss.

Letters: N RoIs, C channels, S pooled side, M mask side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bcnet.bilayer import MapTarget, MaskHead, crop_layers, join_crops, select_class
from bcnet.data.source_masks import NEIGHBOURS, OCCLUDER_TARGETS
from bcnet.maps import OCCLUDEE, OCCLUDER, MapSpec, required_layers
from bcnet.modeling import build_mask_head
from bcnet.modeling.mask_branch import MaskBranch, MaskRoIs
from bcnet.ops.boxes import scaled_boxes
from bcnet.structures import Targets
from bcnet.training.reproducibility import seed_everything
from studies.heads.plan import ALL, HeadsPlan


def build_arms(plan: HeadsPlan, arms: Sequence[str], channels: int, seed: int) -> dict[str, MaskHead]:
    """The heads of these arms, each initialised from the same seed.

    An arm's occluder maps learn the layer that its MODEL.BILAYER.OCCLUDER_TARGET names, so that arms with either target
    can be trained on the same images.

    Args:
        channels: C, of the pooled features.

    Raises:
        ValueError: an arm has a mask per class, or another value that its head does not support.
    """
    heads = {}
    for arm in arms:
        cfg = plan.arm_config(arm)
        if not cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK:
            raise ValueError(
                f"arm {arm!r}: MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK is False; training and test sets of a study of "
                "heads may have other classes, so its masks are class-agnostic"
            )
        seed_everything(seed)
        try:
            heads[arm] = build_mask_head(cfg, channels)
        except ValueError as error:
            raise ValueError(f"arm {arm!r}: {error}") from error
        heads[arm].maps = with_occluder_target(heads[arm].maps, cfg.MODEL.BILAYER.OCCLUDER_TARGET)
    return heads


def with_occluder_target(maps: Sequence[MapSpec], target: str) -> tuple[MapSpec, ...]:
    """The maps with the layer "occluder", as a target and to balance by, replaced by one of `OCCLUDER_TARGETS`."""
    if target not in OCCLUDER_TARGETS:
        raise ValueError(f"the occluder's target must be one of {', '.join(OCCLUDER_TARGETS)}, got {target!r}")
    return tuple(
        replace(
            spec,
            target=target if spec.target == OCCLUDER else spec.target,
            balanced_by=target if spec.balanced_by == OCCLUDER else spec.balanced_by,
        )
        for spec in maps
    )


class ManyHeads(nn.Module):
    """Mask heads by name of the arm.

    Attributes:
        arms: the heads.
        trunk: who trains the trunk: "all", the name of an arm, or "none".
    """

    def __init__(self, heads: Mapping[str, MaskHead], trunk: str) -> None:
        super().__init__()
        self.arms = nn.ModuleDict(heads)
        self.trunk = trunk

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """The maps of all arms."""
        return tuple(spec for head in self.arms.values() for spec in head.maps)

    def losses(
        self, pooled: Tensor, classes: Tensor, crops: Mapping[str, MapTarget], *, negative_ratio: float = 1.0
    ) -> dict[str, Tensor]:
        """The losses of every arm, as "arm/loss".

        The random draws of an arm (`bcnet.bilayer.balanced_rois`) start from one state, so that all arms draw the same
        RoIs, and an arm the same ones whatever arms are trained beside it.

        Args:
            pooled: float [N, C, S, S]. Only an arm that trains the trunk has a gradient to them.
            classes: int64 [N].
            crops: of the instance masks by layer, [N, M, M].
            negative_ratio: see `bcnet.bilayer.balanced_rois`.
        """
        losses = {}
        seed = int(torch.randint(2**31, (1,)))
        for arm, head in self.arms.items():
            x = pooled if self.trunk in (ALL, arm) else pooled.detach()
            with _seeded(seed, pooled.device):
                own = head.losses(select_class(head(x), classes), crops, negative_ratio=negative_ratio)
            losses |= {f"{arm}/{name}": value for name, value in own.items()}
        return losses


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class ManyHeadsBranch(MaskBranch):
    """The mask branch of a detector with many heads: RoIs are pooled and targets are cropped once for all.

    Attributes:
        head: `ManyHeads`.
    """

    head: ManyHeads

    @classmethod
    def of(cls, branch: MaskBranch, heads: ManyHeads) -> ManyHeadsBranch:
        """A branch with the pooling and settings of another one."""
        return cls(
            branch.pooler,
            heads,  # pyright: ignore[reportArgumentType]  # has what the base class reads of a head: its maps
            negative_ratio=branch.negative_ratio,
            roi_scale=branch.roi_scale,
            box_jitter=branch.box_jitter,
            num_classes=branch.num_classes,
        )

    @property
    def target_layers(self) -> tuple[str, ...]:
        # With the neighbours, by which the log counts instances with an occluder.
        return tuple(dict.fromkeys((OCCLUDEE, *required_layers(self.head.maps), NEIGHBOURS)))

    def samples(
        self, features: Sequence[Tensor], rois: Sequence[MaskRoIs], targets: Sequence[Targets]
    ) -> tuple[Tensor, Tensor, dict[str, MapTarget]]:
        """Pooled features [N, C, S, S], classes [N] and the crops of the mask layers of the RoIs of all images."""
        classes = torch.cat([t.classes[r.instances] for r, t in zip(rois, targets, strict=True)])
        boxes = [scaled_boxes(r.boxes, self.roi_scale) for r in rois]
        side = 2 * self.pooler.output_size
        crops = [crop_layers(t.masks, b, r.instances, side) for r, b, t in zip(rois, boxes, targets, strict=True)]
        return self.pooler(features, boxes), classes, join_crops(crops)

    def losses(
        self, features: Sequence[Tensor], rois: Sequence[MaskRoIs], targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        pooled, classes, crops = self.samples(features, rois, targets)
        return self.head.losses(pooled, classes, crops, negative_ratio=self.negative_ratio)
