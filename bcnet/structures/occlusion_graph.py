"""Occlusion relations between the detections of an image as a directed graph, and the depth order it implies.

Letters: D detections.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Below 1/2, because the occluder layer's probabilities are low: half of the RoIs that train it have no occluder. For a
# small model on synthetic scenes, 0.3 gave three times as many edges as 0.5; 85 % of them, rather than 93 %, named the
# nearer object as the occluder.
EDGE_THRESHOLD = 0.3


class Occlusion(NamedTuple):
    """An edge of the graph: one detection occludes part of another.

    Attributes:
        occludee: position of the partly occluded detection.
        occluder: position of the detection in front of it.
        confidence: 0..1.
    """

    occludee: int
    occluder: int
    confidence: float


@dataclass(frozen=True)
class DepthOrder:
    """A depth order of the detections of an image.

    Attributes:
        depth: int64 [D], 0 for a detection without an occluder, otherwise one more than its deepest occluder. The graph
            does not order detections of equal depth.
        kept: the edges that agree with the order, by descending confidence margin.
        contradicted: the edges that disagree: of a pair with edges in both directions the weaker one, and edges that
            would have closed a cycle.
    """

    depth: np.ndarray
    kept: list[Occlusion]
    contradicted: list[Occlusion]


@dataclass(frozen=True)
class OcclusionGraph:
    """A directed graph over the detections of an image: occludee to occluder.

    Attributes:
        confidence: float [D, D], at [i, j] the confidence that j occludes i, 0..1; zero on the diagonal.
        threshold: minimum confidence of an edge.
    """

    confidence: np.ndarray
    threshold: float = EDGE_THRESHOLD

    def __post_init__(self) -> None:
        shape = np.shape(self.confidence)
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"confidence must be [D, D], got {shape}")

    def __len__(self) -> int:
        return len(self.confidence)

    @functools.cached_property
    def edges(self) -> list[Occlusion]:
        """The pairs at or above the threshold, by descending confidence.

        A pair may have edges in both directions: two objects that occlude parts of each other, or a model that was
        trained without a depth order, for which every close neighbour is an occluder.
        """
        occludees, occluders = np.nonzero(self.confidence >= self.threshold)
        edges = [
            Occlusion(i, j, float(self.confidence[i, j]))
            for i, j in zip(occludees.tolist(), occluders.tolist(), strict=True)
            if i != j
        ]
        return sorted(edges, key=lambda edge: (-edge.confidence, edge.occludee, edge.occluder))

    @functools.cached_property
    def order(self) -> DepthOrder:
        """The depth order by ranked pairs (Tideman 1987): pairs with the largest confidence margin are fixed first.

        The margin of a pair is the difference of its two confidences. Edges are added by descending margin; an edge
        that would close a cycle with earlier ones is rejected. Of a pair with edges in both directions only the one
        with the higher confidence is added, and none if they are equal. So every cycle is broken at its pair of
        smallest margin, and the result depends on the detections' positions only between pairs of equal margin.
        """
        count = len(self)
        confidence_margin = self.confidence - self.confidence.T
        # behind[i, j]: j is in front of i by the edges added so far (transitive closure).
        behind = np.zeros((count, count), dtype=bool)
        kept, contradicted = [], []
        for edge in sorted(
            self.edges, key=lambda e: (-confidence_margin[e.occludee, e.occluder], e.occludee, e.occluder)
        ):
            i, j, _ = edge
            if confidence_margin[i, j] <= 0 or behind[j, i]:
                contradicted.append(edge)
                continue
            kept.append(edge)
            below, above = behind[:, i].copy(), behind[j].copy()
            below[i] = above[j] = True
            behind |= below[:, None] & above
        depth = np.zeros(count, dtype=np.int64)
        # Topological order: a detection with fewer others in front comes first, so occluders precede their occludees.
        for i in np.argsort(behind.sum(axis=1), kind="stable").tolist():
            occluders = [edge.occluder for edge in kept if edge.occludee == i]
            depth[i] = 1 + depth[occluders].max() if occluders else 0
        return DepthOrder(depth, kept, contradicted)
