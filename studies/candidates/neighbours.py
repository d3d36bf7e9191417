"""Auxiliary map of the neighbours, whatever their order, as the published head learns them."""

from __future__ import annotations

from collections.abc import Sequence

from bcnet.data.source_masks import NEIGHBOURS
from bcnet.maps import OCCLUDEE, PUBLISHED_MAPS, MapSpec
from studies.candidates.base import CandidateHead

NEIGHBOURS_MASK = MapSpec(
    name="neighbours_mask",
    short_name="neighbours_mask",
    layer=OCCLUDEE,
    target=NEIGHBOURS,
    loss_name="loss_neighbours_mask",
    weight=0.25,
    balanced_by=NEIGHBOURS,
    title="neighbours",
)


class LearnsNeighbours(CandidateHead):
    """Adds the neighbours' map to those of a candidate; inference has no use for it."""

    def __init__(self, channels: int, *, maps: Sequence[MapSpec] = PUBLISHED_MAPS, **options) -> None:
        super().__init__(channels, maps=[*maps, NEIGHBOURS_MASK], **options)
