"""Occlusion relations: of annotations by the occluder rule on RLE masks, of detections from the maps of both layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcnet.lazy_import import lazy_attributes
from bcnet.occlusion.rule import occluder_rles

if TYPE_CHECKING:
    from bcnet.occlusion.relations import hidden_part_confidence, occluder_confidence, with_relations

__all__ = ["hidden_part_confidence", "occluder_confidence", "occluder_rles", "with_relations"]

__getattr__ = lazy_attributes(
    __name__, dict.fromkeys(("hidden_part_confidence", "occluder_confidence", "with_relations"), "relations")
)
