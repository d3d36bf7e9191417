"""`Detections` in words: a short representation for the prompt, and a summary."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bcnet.words import counted

if TYPE_CHECKING:
    from bcnet.structures.detections import Detections

SHOWN = 3  # detections that the short representation names
LISTED = 30  # occlusions and hidden parts that the summary lists


def short_representation(detections: Detections) -> str:
    """Such as ``<Detections: 4 instances (person 98%, sofa 91%, cup 60%, ...), 2 occlusions, image 640 x 480>``."""
    parts = [counted(len(detections), "instance")]
    if len(detections):
        scores = detections.scores.tolist()
        best = sorted(range(len(scores)), key=lambda index: -scores[index])[:SHOWN]
        named = [_with_score(detections, index) for index in best]
        parts[0] += f" ({', '.join(named + ['...'] * (len(detections) > SHOWN))})"
    # Of a part of an image's detections, relations to the others are not known: one alone has none to speak of.
    if detections.occluded_by is not None and len(detections) > 1:
        count = len(detections.occlusion.order.kept)
        parts.append(counted(count, "occlusion") + " among them" * (count == 0))
    height, width = detections.image_size
    parts.append(f"image {width} x {height}")
    return f"<Detections: {', '.join(parts)}>"


def summary(detections: Detections) -> str:
    """See `Detections.summary`."""
    height, width = detections.image_size
    counts = Counter(detections.names).most_common()
    what = ", ".join(f"{count} x {name}" for name, count in counts)
    image = detections.path or "an image"
    lines = [
        f"{counted(len(detections), 'instance')} in {image} of {width} x {height} pixels" + (f": {what}" * bool(counts))
    ]
    lines += _listed(_relations(detections)) + _listed(_hidden(detections))
    return "\n".join(lines)


def _relations(detections: Detections) -> list[str]:
    if detections.occluded_by is None:
        return []
    if not (kept := detections.occlusion.order.kept):
        return ["no instance is in front of another"] if len(detections) > 1 else []
    return [
        f"#{edge.occluder + 1} {_with_score(detections, edge.occluder)} is in front of #{edge.occludee + 1} "
        f"{_with_score(detections, edge.occludee)} (confidence {edge.confidence:.2f})"
        for edge in kept
    ]


def _hidden(detections: Detections) -> list[str]:
    if not detections.has_hidden_parts:
        return []
    shares = [f"{100 * share:.0f}" for share in detections.occluded_fraction.tolist()]
    return [
        f"#{index + 1} {_with_score(detections, index)}: {share}% hidden"
        for index, share in enumerate(shares)
        if share != "0"
    ]


def _listed(lines: list[str]) -> list[str]:
    more = len(lines) - LISTED
    return lines if more <= 0 else [*lines[:LISTED], f"... and {more} more"]


def _with_score(detections: Detections, index: int) -> str:
    return f"{detections.names[index]} {100 * float(detections.scores[index]):.0f}%"
