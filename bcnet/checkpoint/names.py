"""Parameter names: ours, and what detectron2, the published BCNet code, torchvision and Caffe2 call the same.

A dialect is an ordered list of rules, each a pair of templates (ours, theirs) that works both ways::

    "backbone.resnet.layer{s}.{b}.conv{c}.*", "backbone.bottom_up.res{s+1}.{b}.conv{c}.*"

``{s}`` is a number and ``{s+1}`` the same number plus one, ``*`` one name without dots (weight, running_mean, ...),
``**`` everything that follows. The first rule that matches decides.

Names alone are handled here; values that change on the way (order of classes, missing statistics) are
`bcnet.checkpoint.convert`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

BCNET, DETECTRON2, PUBLISHED, TORCHVISION = "bcnet", "detectron2", "published", "torchvision"
DETECTRON2_BACKBONE, TORCHVISION_BACKBONE, CAFFE2 = "detectron2_backbone", "torchvision_backbone", "caffe2"

DESCRIPTIONS = {
    BCNET: "bcnet",
    DETECTRON2: "detectron2",
    PUBLISHED: "the published BCNet FCOS code",
    TORCHVISION: "torchvision's detectors",
    DETECTRON2_BACKBONE: "an ImageNet ResNet with detectron2's names",
    TORCHVISION_BACKBONE: "an ImageNet ResNet of torchvision",
    CAFFE2: "an ImageNet ResNet with Caffe2's names",
}

_TOKEN = re.compile(r"\{(\w+)(?:\+(\d+))?\}|(\*\*)|(\*)")


class UnknownNamesError(ValueError):
    """The names are those of no model that is known here."""


class Renamer:
    """Ordered rules between our names and another dialect's."""

    def __init__(self, rules: Sequence[tuple[str, str]]) -> None:
        self._to_ours = [(_compile(theirs), ours) for ours, theirs in rules]
        self._from_ours = [(_compile(ours), theirs) for ours, theirs in rules]

    def to_ours(self, key: str) -> str | None:
        """Our name of a dialect's key; None if no rule knows it."""
        return _apply(self._to_ours, key)

    def from_ours(self, key: str) -> str | None:
        """The dialect's name of our key; None if no rule knows it."""
        return _apply(self._from_ours, key)


def _compile(template: str) -> tuple[re.Pattern, dict[str, int]]:
    """The template as a regular expression, and what each of its numbers has been increased by."""
    pattern, offsets, end = "", {}, 0
    for token in _TOKEN.finditer(template):
        pattern += re.escape(template[end : token.start()])
        number, offset, rest, _ = token.groups()
        if number:
            offsets[number] = int(offset or 0)
            pattern += rf"(?P<{number}>\d+)"
        else:
            pattern += r"(?P<rest>.+)" if rest else r"(?P<leaf>[^.]+)"
        end = token.end()
    return re.compile(pattern + re.escape(template[end:])), offsets


def _apply(rules: Sequence[tuple[tuple[re.Pattern, dict[str, int]], str]], key: str) -> str | None:
    for (pattern, offsets), template in rules:
        match = pattern.fullmatch(key)
        if not match:
            continue
        numbers = {name: int(match[name]) - offset for name, offset in offsets.items()}
        if min(numbers.values(), default=0) < 0:
            continue
        return _TOKEN.sub(lambda token: _render(token, match, numbers), template)  # noqa: B023 (used at once)
    return None


def _render(token: re.Match, match: re.Match, numbers: dict[str, int]) -> str:
    number, offset, rest, _ = token.groups()
    if number:
        return str(numbers[number] + int(offset or 0))
    return match["rest" if rest else "leaf"]


# -- The rules ---------------------------------------------------------------------------------------------


def _detectron2_resnet(prefix: str) -> list[tuple[str, str]]:
    ours, block = "backbone.resnet.", "layer{s}.{b}."
    theirs, their_block = prefix, "res{s+1}.{b}."
    return [
        (f"{ours}conv1.*", f"{theirs}stem.conv1.*"),
        (f"{ours}bn1.*", f"{theirs}stem.conv1.norm.*"),
        (f"{ours}{block}conv{{c}}.*", f"{theirs}{their_block}conv{{c}}.*"),
        (f"{ours}{block}bn{{c}}.*", f"{theirs}{their_block}conv{{c}}.norm.*"),
        (f"{ours}{block}downsample.0.*", f"{theirs}{their_block}shortcut.*"),
        (f"{ours}{block}downsample.1.*", f"{theirs}{their_block}shortcut.norm.*"),
    ]


def _detectron2_fpn(first_stage: int) -> list[tuple[str, str]]:
    # torchvision counts the levels from 0, detectron2 names them by their stage.
    return [
        ("backbone.fpn.inner_blocks.{l}.0.*", f"backbone.fpn_lateral{{l+{first_stage}}}.*"),
        ("backbone.fpn.layer_blocks.{l}.0.*", f"backbone.fpn_output{{l+{first_stage}}}.*"),
        ("backbone.fpn.extra_blocks.p{l}.*", "backbone.top_block.p{l}.*"),
    ]


def _plain_mask_head(prefix: str) -> list[tuple[str, str]]:
    return [
        ("mask_branch.head.layer.convs.{i}.*", f"{prefix}mask_head.mask_fcn{{i+1}}.*"),
        ("mask_branch.head.mask.deconv.*", f"{prefix}mask_head.deconv.*"),
        ("mask_branch.head.mask.predictor.*", f"{prefix}mask_head.predictor.*"),
    ]


def _detectron2(first_stage: int, fcos: bool) -> list[tuple[str, str]]:
    """Detectron2's own models, and our models in the detectron2 plugin."""
    mask = "" if fcos else "roi_heads."
    detector = [
        ("rpn.head.conv.0.0.*", "proposal_generator.rpn_head.conv.*"),
        ("rpn.head.cls_logits.*", "proposal_generator.rpn_head.objectness_logits.*"),
        ("rpn.head.bbox_pred.*", "proposal_generator.rpn_head.anchor_deltas.*"),
        ("box_branch.head.fcs.{i}.*", "roi_heads.box_head.fc{i+1}.*"),
        ("box_branch.head.cls_score.*", "roi_heads.box_predictor.cls_score.*"),
        ("box_branch.head.bbox_pred.*", "roi_heads.box_predictor.bbox_pred.*"),
    ]
    return [
        *_detectron2_resnet("backbone.bottom_up."),
        *_detectron2_fpn(first_stage),
        *([("head.**", "head.**")] if fcos else detector),
        *_plain_mask_head(mask),
        # The plugin's mask head is our module.
        ("mask_branch.head.occluder_**", f"{mask}mask_head.occluder_**"),
        ("mask_branch.head.occludee_**", f"{mask}mask_head.occludee_**"),
    ]


def _published() -> list[tuple[str, str]]:
    ours, theirs = "mask_branch.head.", "mask_head."
    rules = [
        *_detectron2_resnet("backbone.bottom_up."),
        *_detectron2_fpn(first_stage=3),
        ("head.box_tower.**", "head.bbox_tower.**"),
        ("head.distances.*", "head.bbox_pred.*"),
        ("head.scales.{i}", "head.scales.{i}.scale"),
        ("head.**", "head.**"),
        (f"{ours}occluder_layer.convs.{{i}}.*", f"{theirs}boundary_fcn{{i+1}}.*"),
        (f"{ours}occludee_layer.convs.{{i}}.*", f"{theirs}mask_fcn{{i+1}}.*"),
    ]
    for layer, suffix in (("occluder", "bound_bo"), ("occludee", "bound")):
        for projection in ("query", "key", "value", "output"):
            rules.append((f"{ours}{layer}_layer.gcn.{projection}.*", f"{theirs}{projection}_transform_{suffix}.*"))
        rules.append((f"{ours}{layer}_layer.gcn.norm.*", f"{theirs}blocker_{suffix}.*"))
    for decoder, deconv, predictor in (
        ("occludee_mask", "deconv", "predictor"),
        ("occludee_boundary", "boundary_deconv", "boundary_predictor"),
        ("occluder_mask", "bo_deconv", "predictor_bo"),
        ("occluder_boundary", "boundary_deconv_bo", "boundary_predictor_bo"),
    ):
        rules.append((f"{ours}{decoder}.deconv.*", f"{theirs}{deconv}.*"))
        rules.append((f"{ours}{decoder}.predictor.*", f"{theirs}{predictor}.*"))
    return rules


def _torchvision() -> list[tuple[str, str]]:
    """Torchvision's detectors; where two rules share our side, the second is the name in older files."""
    return [
        ("backbone.resnet.**", "backbone.body.**"),
        ("backbone.fpn.inner_blocks.{l}.0.*", "backbone.fpn.inner_blocks.{l}.0.*"),
        ("backbone.fpn.inner_blocks.{l}.0.*", "backbone.fpn.inner_blocks.{l}.*"),
        ("backbone.fpn.layer_blocks.{l}.0.*", "backbone.fpn.layer_blocks.{l}.0.*"),
        ("backbone.fpn.layer_blocks.{l}.0.*", "backbone.fpn.layer_blocks.{l}.*"),
        ("backbone.fpn.extra_blocks.p{l}.*", "backbone.fpn.extra_blocks.p{l}.*"),
        ("rpn.head.conv.0.0.*", "rpn.head.conv.0.0.*"),
        ("rpn.head.conv.0.0.*", "rpn.head.conv.*"),
        ("rpn.head.cls_logits.*", "rpn.head.cls_logits.*"),
        ("rpn.head.bbox_pred.*", "rpn.head.bbox_pred.*"),
        ("box_branch.head.fcs.{i}.*", "roi_heads.box_head.fc{i+6}.*"),
        ("box_branch.head.cls_score.*", "roi_heads.box_predictor.cls_score.*"),
        ("box_branch.head.bbox_pred.*", "roi_heads.box_predictor.bbox_pred.*"),
        ("mask_branch.head.layer.convs.{i}.*", "roi_heads.mask_head.{i}.0.*"),
        ("mask_branch.head.layer.convs.{i}.*", "roi_heads.mask_head.mask_fcn{i+1}.*"),
        ("mask_branch.head.mask.deconv.*", "roi_heads.mask_predictor.conv5_mask.*"),
        ("mask_branch.head.mask.predictor.*", "roi_heads.mask_predictor.mask_fcn_logits.*"),
        ("head.cls_tower.**", "head.classification_head.conv.**"),
        ("head.box_tower.**", "head.regression_head.conv.**"),
        ("head.cls_logits.*", "head.classification_head.cls_logits.*"),
        ("head.distances.*", "head.regression_head.bbox_reg.*"),
        ("head.centerness.*", "head.regression_head.bbox_ctrness.*"),
    ]


def _caffe2() -> list[tuple[str, str]]:
    """Caffe2's ResNets; a BatchNorm has four tensors, or two (s, b) where its statistics are merged in."""
    resnet = "backbone.resnet."
    convs = [("conv1", "conv1", "bn1", "res_conv1_bn")]
    for branch, conv, norm in (
        ("branch1", "downsample.0", "downsample.1"),
        ("branch2a", "conv1", "bn1"),
        ("branch2b", "conv2", "bn2"),
        ("branch2c", "conv3", "bn3"),
    ):
        theirs = f"res{{s+1}}_{{b}}_{branch}"
        convs.append((f"layer{{s}}.{{b}}.{conv}", theirs, f"layer{{s}}.{{b}}.{norm}", f"{theirs}_bn"))
    leaves = (
        ("weight", ("gamma", "s")),
        ("bias", ("beta", "b")),
        ("running_mean", ("running_mean", "rm")),
        ("running_var", ("running_var", "riv")),
    )
    rules = []
    for conv, their_conv, norm, their_norm in convs:
        rules.append((f"{resnet}{conv}.weight", f"{their_conv}_w"))
        for leaf, their_leaves in leaves:
            rules += [(f"{resnet}{norm}.{leaf}", f"{their_norm}_{their_leaf}") for their_leaf in their_leaves]
    return rules


def renamer(dialect: str, keys: Iterable[str]) -> Renamer:
    """The rules between our names and a dialect's, as they apply to a model with these keys.

    Args:
        dialect: one of the constants above.
        keys: all keys, ours or the dialect's; they tell the detector and its finest pyramid level.
    """
    keys = list(keys)
    rules = {
        BCNET: lambda: [("**", "**")],
        DETECTRON2: lambda: _detectron2(first_stage(keys) or 2, fcos=any(key.startswith("head.") for key in keys)),
        PUBLISHED: _published,
        TORCHVISION: _torchvision,
        DETECTRON2_BACKBONE: lambda: _detectron2_resnet(""),
        TORCHVISION_BACKBONE: lambda: [("backbone.resnet.**", "**")],
        CAFFE2: _caffe2,
    }
    return Renamer(rules[dialect]())


def first_stage(keys: Iterable[str]) -> int | None:
    """The ResNet stage of the pyramid's finest level, 2 or 3; None where there is no pyramid."""
    levels = set()
    for key in keys:
        match = re.match(r"backbone\.(?:fpn_lateral|fpn\.inner_blocks\.)(\d+)\.", key)
        if match:
            levels.add((int(match[1]), "fpn_lateral" in key))
    if not levels:
        return None
    if any(named_by_stage for _, named_by_stage in levels):
        return min(level for level, _ in levels)
    # Levels counted from 0 end with stage 5.
    return 5 - max(level for level, _ in levels)


def recognise(keys: Iterable[str]) -> str:
    """The dialect that a file's keys are written in.

    Raises:
        UnknownNamesError: none that is known.
        ValueError: a torchvision model with layers that ours do not have.
    """
    keys = list(keys)

    def some(*prefixes: str) -> bool:
        return any(key.startswith(prefixes) for key in keys)

    if some("backbone.resnet.", "mask_branch.", "box_branch."):
        return BCNET
    if some("backbone.bottom_up."):
        return PUBLISHED if some("head.bbox_tower.", "mask_head.boundary_fcn1.", "mask_head.bo_deconv.") else DETECTRON2
    if some("backbone.body."):
        if some("backbone.fpn.inner_blocks.0.1.", "rpn.head.conv.1."):
            raise ValueError(
                "these are weights of torchvision's fasterrcnn_resnet50_fpn_v2 or maskrcnn_resnet50_fpn_v2, whose FPN, "
                "RPN and heads have layers that the models here do not have; take maskrcnn_resnet50_fpn, or the "
                "ImageNet weights of resnet50"
            )
        return TORCHVISION
    if some("conv1_w") and some("res2_0_branch2a_w"):
        return CAFFE2
    if some("stem.conv1.weight") and some("res2.0.conv1."):
        return DETECTRON2_BACKBONE
    if some("conv1.weight") and some("layer1.0.conv1.weight"):
        return TORCHVISION_BACKBONE
    names = ", ".join(sorted(keys)[:5])
    raise UnknownNamesError(
        f"the names of these {len(keys)} tensors ({names}, ...) are those of no model that is known here; known are "
        + ", ".join(DESCRIPTIONS.values())
    )
