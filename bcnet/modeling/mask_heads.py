"""Registered mask heads: built from the config, with their parameter names in checkpoints; builds the mask branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from bcnet import bilayer
from bcnet.maps import BUILT_IN_MAPS, OCCLUDEE_AMODAL, PUBLISHED_MAPS, MapSpec
from bcnet.modeling.checkpoint_adapter import (
    DETECTRON2,
    MASK_HEAD,
    PUBLISHED,
    TORCHVISION,
    CheckpointAdapter,
    Rule,
)
from bcnet.modeling.mask_branch import MaskBranch
from bcnet.modeling.pooler import RoIPooler
from bcnet.modeling.registry import MASK_HEAD_REGISTRY, build_mask_head

if TYPE_CHECKING:
    from bcnet.checkpoint.convert import Conversion


def num_mask_classes(cfg) -> int:
    """Mask classes of the head: 1 for class-agnostic masks."""
    return 1 if cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES


def loss_weights(cfg) -> dict[str, float]:
    """MODEL.BILAYER.LOSS_WEIGHT by map name; a map of another package has the weight of its record."""
    return {spec.name: cfg.MODEL.BILAYER.LOSS_WEIGHT[spec.name.upper()] for spec in BUILT_IN_MAPS}


def bilayer_maps(cfg) -> tuple[MapSpec, ...]:
    """The published maps, and with MODEL.BILAYER.AMODAL the amodal mask."""
    return (*PUBLISHED_MAPS, OCCLUDEE_AMODAL) if cfg.MODEL.BILAYER.AMODAL else PUBLISHED_MAPS


def bilayer_keywords(cfg, in_channels: int) -> dict:
    """Keyword arguments of a head with occluder and occludee except its channels, from MODEL.ROI_MASK_HEAD and
    MODEL.BILAYER.

    Raises:
        ValueError: CONV_DIM other than the pooled features' channels.
    """
    mask, section = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.BILAYER
    if mask.CONV_DIM != in_channels:
        raise ValueError(
            f"{mask.NAME} adds its layers to the pooled features: MODEL.ROI_MASK_HEAD.CONV_DIM must be {in_channels} "
            f"like the backbone's channels (MODEL.FPN.OUT_CHANNELS), got {mask.CONV_DIM}"
        )
    return {
        "num_conv": mask.NUM_CONV,
        "num_mask_classes": num_mask_classes(cfg),
        "use_gcn": section.GCN,
        "use_boundary": section.BOUNDARY,
        "gcn_norm": section.GCN_NORM,
        "freeze_gcn_norm": section.FREEZE_GCN_NORM,
        "maps": bilayer_maps(cfg),
        "loss_weights": loss_weights(cfg),
    }


class BilayerMaskHeadAdapter(CheckpointAdapter):
    """The published code's names; the plugin's head has the names of ours."""

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        if dialect == DETECTRON2:
            return [("occluder_**", "occluder_**"), ("occludee_**", "occludee_**")]
        return _published() if dialect == PUBLISHED else ()

    def adapt(self, conversion: Conversion, own: Mapping[str, Tensor]) -> None:
        adopt_plain_head(conversion, own)


def _published() -> list[Rule]:
    rules = [
        ("occluder_layer.convs.{i}.*", "boundary_fcn{i+1}.*"),
        ("occludee_layer.convs.{i}.*", "mask_fcn{i+1}.*"),
    ]
    for layer, suffix in (("occluder", "bound_bo"), ("occludee", "bound")):
        for projection in ("query", "key", "value", "output"):
            rules.append((f"{layer}_layer.gcn.{projection}.*", f"{projection}_transform_{suffix}.*"))
        rules.append((f"{layer}_layer.gcn.norm.*", f"blocker_{suffix}.*"))
    for decoder, deconv, predictor in (
        ("occludee_mask", "deconv", "predictor"),
        ("occludee_boundary", "boundary_deconv", "boundary_predictor"),
        ("occluder_mask", "bo_deconv", "predictor_bo"),
        ("occluder_boundary", "boundary_deconv_bo", "boundary_predictor_bo"),
    ):
        rules += [(f"{decoder}.deconv.*", f"{deconv}.*"), (f"{decoder}.predictor.*", f"{predictor}.*")]
    return rules


def adopt_plain_head(conversion: Conversion, own: Mapping[str, Tensor]) -> None:
    """Gives a plain mask head's tensors to the visible mask of a head with layers, in place.

    Its convolutions become those of the bilayer head's occludee, or the shared ones of the head with a side branch and,
    from where these end, the visible ones, which read the pooled features too: a start, not the same masks. Its
    decoders are the occludee's. `own` has the tensors of the model.
    """
    shared = sum(key.startswith(f"{MASK_HEAD}shared_layer.convs.") and key.endswith(".weight") for key in own)
    if not shared and f"{MASK_HEAD}occludee_layer.convs.0.weight" not in own:
        return

    def of_layers(name: str) -> str:
        part, _, rest = name.partition(".")
        if part in ("mask", "boundary"):
            return f"occludee_{part}.{rest}"
        if part != "layer":
            return name
        if not shared:
            return f"occludee_{name}"
        convs, index, parameter = rest.split(".")
        layer, number = ("shared_layer", int(index)) if int(index) < shared else ("visible_layer", int(index) - shared)
        return f"{layer}.{convs}.{number}.{parameter}"

    for key in list(conversion.state):
        name = key.removeprefix(MASK_HEAD)
        if name != key and of_layers(name) != name:
            conversion.rename(key, MASK_HEAD + of_layers(name))


class SideBranchMaskHeadAdapter(CheckpointAdapter):
    """In detectron2 the head is this module."""

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        if dialect != DETECTRON2:
            return ()
        return [(f"{part}_**", f"{part}_**") for part in ("shared", "visible", "branch", "occluder", "occludee")]

    def adapt(self, conversion: Conversion, own: Mapping[str, Tensor]) -> None:
        adopt_plain_head(conversion, own)


class PlainMaskHeadAdapter(CheckpointAdapter):
    """Mask R-CNN's head in detectron2 and torchvision; the plugin's PlainMaskHead has our own names."""

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        return {
            DETECTRON2: [
                ("layer.convs.{i}.*", "mask_fcn{i+1}.*"),
                ("mask.deconv.*", "deconv.*"),
                ("mask.predictor.*", "predictor.*"),
                ("layer.**", "layer.**"),
                ("mask.**", "mask.**"),
                ("boundary.**", "boundary.**"),
            ],
            TORCHVISION: [
                ("layer.convs.{i}.*", "mask_head.{i}.0.*"),
                ("layer.convs.{i}.*", "mask_head.mask_fcn{i+1}.*"),  # in older files
                ("mask.deconv.*", "mask_predictor.conv5_mask.*"),
                ("mask.predictor.*", "mask_predictor.mask_fcn_logits.*"),
            ],
        }.get(dialect, ())


@MASK_HEAD_REGISTRY.register()
class BilayerMaskHead(bilayer.BilayerMaskHead):
    """`bcnet.bilayer.BilayerMaskHead` from the config."""

    checkpoint_adapter = BilayerMaskHeadAdapter()

    @classmethod
    def from_config(cls, cfg, in_channels: int) -> BilayerMaskHead:
        """Reads MODEL.ROI_MASK_HEAD and MODEL.BILAYER, see `bilayer_keywords`."""
        return cls(in_channels, **bilayer_keywords(cfg, in_channels))


@MASK_HEAD_REGISTRY.register()
class SideBranchMaskHead(bilayer.SideBranchMaskHead):
    """`bcnet.bilayer.SideBranchMaskHead` from the config."""

    checkpoint_adapter = SideBranchMaskHeadAdapter()

    @classmethod
    def from_config(cls, cfg, in_channels: int) -> SideBranchMaskHead:
        """Reads MODEL.ROI_MASK_HEAD and MODEL.BILAYER, see `bilayer_keywords`."""
        return cls(in_channels, **bilayer_keywords(cfg, in_channels))


def plain_keywords(cfg, in_channels: int) -> dict:
    """Keyword arguments of `bilayer.PlainMaskHead` except `in_channels`, from MODEL.ROI_MASK_HEAD.

    Raises:
        ValueError: no convolution (NUM_CONV 0) and CONV_DIM other than the pooled features' channels; or
            MODEL.BILAYER.AMODAL, which this head has no map for.
    """
    mask = cfg.MODEL.ROI_MASK_HEAD
    if cfg.MODEL.BILAYER.AMODAL:
        raise ValueError(f"MODEL.BILAYER.AMODAL is True; the plain head ({mask.NAME}) has no amodal map")
    if mask.NUM_CONV == 0 and mask.CONV_DIM != in_channels:
        raise ValueError(
            f"MODEL.ROI_MASK_HEAD.NUM_CONV is 0: its CONV_DIM must be {in_channels} like the pooled features, got "
            f"{mask.CONV_DIM}"
        )
    return {
        "channels": mask.CONV_DIM,
        "num_conv": mask.NUM_CONV,
        "num_mask_classes": num_mask_classes(cfg),
        "use_boundary": mask.BOUNDARY,
        "loss_weights": loss_weights(cfg),
    }


class PlainMaskHead(bilayer.PlainMaskHead):
    """`bcnet.bilayer.PlainMaskHead` from the config."""

    checkpoint_adapter = PlainMaskHeadAdapter()

    @classmethod
    def from_config(cls, cfg, in_channels: int) -> PlainMaskHead:
        """Reads MODEL.ROI_MASK_HEAD, see `plain_keywords`."""
        return cls(in_channels, **plain_keywords(cfg, in_channels))


# Under detectron2's name, and under that of the plugin's head: detectron2's own has no boundary decoder.
for _name in ("MaskRCNNConvUpsampleHead", "PlainMaskHead"):
    MASK_HEAD_REGISTRY.register(PlainMaskHead, name=_name)


def build_mask_branch(cfg, in_channels: int, strides: Sequence[int]) -> MaskBranch | None:
    """RoI pooling and the head that MODEL.ROI_MASK_HEAD names; None unless MODEL.MASK_ON.

    Args:
        in_channels: channels of the levels that masks are pooled from.
        strides: of these levels in pixels, fine to coarse.
    """
    if not cfg.MODEL.MASK_ON:
        return None
    mask = cfg.MODEL.ROI_MASK_HEAD
    pooler = RoIPooler(mask.POOLER_RESOLUTION, strides, mask.POOLER_SAMPLING_RATIO)
    head = build_mask_head(cfg, in_channels)
    return MaskBranch(
        pooler,
        head,
        negative_ratio=cfg.MODEL.BILAYER.OCCLUDER_NEGATIVE_RATIO,
        roi_scale=mask.ROI_SCALE,
        box_jitter=mask.BOX_JITTER,
        num_classes=num_mask_classes(cfg),
    )
