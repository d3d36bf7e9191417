"""Parameter names: renaming between bcnet, detectron2, the published BCNet code, torchvision and Caffe2.

A dialect is the naming scheme of one code base. Its bidirectional rules belong to the components that own the tensors
(`bcnet.modeling.checkpoint_adapter`) and are collected here from the registries.

This module handles names only; `bcnet.checkpoint.convert` converts values (order of classes, missing statistics).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bcnet.modeling import BACKBONE_REGISTRY, DETECTOR_REGISTRY, MASK_HEAD_REGISTRY
from bcnet.modeling.checkpoint_adapter import (
    BCNET,
    CAFFE2,
    DETECTRON2,
    DETECTRON2_BACKBONE,
    MASK_HEAD,
    PUBLISHED,
    TORCHVISION,
    TORCHVISION_BACKBONE,
    CheckpointAdapter,
    Rule,
    adapter_of,
)

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


def description(dialect: str) -> str:
    """Human-readable name of a dialect; of a dialect that a component defines, the dialect itself."""
    return DESCRIPTIONS.get(dialect, dialect)


class UnknownNamesError(ValueError):
    """The tensor names do not belong to any known model."""


class Renamer:
    """Ordered rules between our names and another dialect's."""

    def __init__(self, rules: Sequence[Rule], *, without_rules: Sequence[Rule] = ()) -> None:
        """
        Args:
            rules: see `bcnet.modeling.checkpoint_adapter`.
            without_rules: fallback rules from our names, for components without an adapter.
        """
        self._to_ours = [(_compile(theirs), ours) for ours, theirs in rules]
        self._from_ours = [(_compile(ours), theirs) for ours, theirs in (*rules, *without_rules)]

    def to_ours(self, key: str) -> str | None:
        """Our name of a dialect's key; None without a matching rule."""
        return _apply(self._to_ours, key)

    def from_ours(self, key: str) -> str | None:
        """The dialect's name of our key; None without a matching rule."""
        return _apply(self._from_ours, key)


def _compile(template: str) -> tuple[re.Pattern, dict[str, int]]:
    """The template as a regular expression, and the offset of each of its numbers."""
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


def renamer(dialect: str, keys: Iterable[str]) -> Renamer:
    """The renaming rules between our names and a dialect's for a model with these keys.

    Collected from all registered components (`CheckpointAdapter.rules`).

    Args:
        dialect: one of the constants above, or one that a component defines.
        keys: all keys, ours or the dialect's.
    """
    keys = list(keys)
    if dialect == BCNET:
        return Renamer([("**", "**")])
    rules = [rule for own_rules in _backbones(dialect, keys) for rule in own_rules]
    unchanged = [("backbone.**", "backbone.**")]
    for adapter, own_rules in _detectors(dialect, keys):
        rules += own_rules
        place = adapter.mask_head(dialect)
        if place is not None:
            for _, head in MASK_HEAD_REGISTRY:
                rules += [(MASK_HEAD + ours, place + theirs) for ours, theirs in adapter_of(head).rules(dialect, keys)]
            unchanged.append((f"{MASK_HEAD}**", f"{place}**"))
    return Renamer(list(dict.fromkeys(rules)), without_rules=unchanged)


def _backbones(dialect: str, keys: Sequence[str]) -> list[Sequence[Rule]]:
    """The rules of the backbones' adapters; first those with rules for most of the keys."""
    adapters = {id(adapter): adapter for _, backbone in BACKBONE_REGISTRY if (adapter := adapter_of(backbone))}
    ranked = []
    for adapter in adapters.values():
        rules = adapter.rules(dialect, keys)
        own = Renamer(rules)
        ranked.append((sum(bool(own.to_ours(key) or own.from_ours(key)) for key in keys), rules))
    return [rules for _, rules in sorted(ranked, key=lambda entry: -entry[0])]


def _detectors(dialect: str, keys: Sequence[str]) -> list[tuple[CheckpointAdapter, Sequence[Rule]]]:
    """The detectors' adapters with their rules; first those with rules for some of the keys."""
    ranked = []
    for _, detector in DETECTOR_REGISTRY:
        adapter = adapter_of(detector)
        rules = adapter.rules(dialect, keys)
        own = Renamer(rules)
        ranked.append((not any(own.to_ours(key) or own.from_ours(key) for key in keys), adapter, rules))
    return [(adapter, rules) for _, adapter, rules in sorted(ranked, key=lambda entry: entry[0])]


def recognise(keys: Iterable[str]) -> str:
    """Detects the dialect of a file's keys.

    Raises:
        UnknownNamesError: an unknown dialect.
        ValueError: a torchvision model with layers that our models lack.
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
    if some("roi_heads.", "proposal_generator.", "mask_head."):  # on another backbone
        return DETECTRON2
    if some("conv1_w") and some("res2_0_branch2a_w"):
        return CAFFE2
    if some("stem.conv1.weight") and some("res2.0.conv1."):
        return DETECTRON2_BACKBONE
    if some("conv1.weight") and some("layer1.0.conv1.weight"):
        return TORCHVISION_BACKBONE
    names = ", ".join(sorted(keys)[:5])
    raise UnknownNamesError(
        f"the names of these {len(keys)} tensors ({names}, ...) do not belong to any known model; known are "
        + ", ".join(DESCRIPTIONS.values())
    )
