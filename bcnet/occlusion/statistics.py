"""How much of a data set is occluded: what the conversion counts and prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pycocotools import mask as coco_mask

from bcnet.occlusion.annotations import Fault


def occluder_share(mask: dict, occluder: dict) -> float:
    """area(occluder) / (area(occluder) + area(mask)), 0..1: how much of what a box shows belongs to neighbours.

    Visible masks say neither which of the two is in front nor how large the hidden part is, so for COCO this
    measures how crowded an instance is.

    Args:
        mask, occluder: compressed RLEs of one image; the occluder is not empty.
    """
    occluder_area = int(coco_mask.area(occluder))
    return occluder_area / (occluder_area + int(coco_mask.area(mask)))


def hidden_share(mask: dict, occluder: dict) -> float:
    """area(mask and occluder) / area(mask), 0..1: the share of the annotated mask that lies under the occluder.

    The published code prints it as its intersect rate. Of an amodal mask this is the hidden share proper.
    Masks of visible parts overlap only where the annotator drew around what is in front, as COCO's often do.
    An empty mask counts as 0.

    Args:
        mask, occluder: compressed RLEs of one image.
    """
    area = int(coco_mask.area(mask))
    return int(coco_mask.area(coco_mask.merge([mask, occluder], intersect=True))) / area if area else 0.0


@dataclass
class OcclusionStatistics:
    """Counts over the images of a file.

    Attributes:
        images, annotations, crowds: all there are.
        instances: annotations that are neither crowds nor malformed.
        occluded: instances with an occluder mask.
        occluder_share, hidden_share: sums over the occluded instances.
        skipped, noted: malformed annotations left out, and odd ones kept, by reason.
        examples: the first message of each reason.
    """

    images: int = 0
    annotations: int = 0
    crowds: int = 0
    instances: int = 0
    occluded: int = 0
    occluder_share: float = 0.0
    hidden_share: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def count_faults(self, faults: Iterable[Fault], annotations: list[dict], skipped: bool) -> None:
        """Counts faults, which name positions in the list of annotations, as skipped or as noted."""
        counts = self.skipped if skipped else self.noted
        for fault in faults:
            counts[fault.reason] += 1
            annotation_id = annotations[fault.position].get("id")
            self.examples.setdefault(fault.reason, f"annotation {annotation_id!r:.40}: {fault.message}")

    def format(self) -> str:
        """The summary as lines of text."""
        occluded = max(self.occluded, 1)
        lines = [
            f"images                       {self.images}",
            f"annotations                  {self.annotations}",
            f"  crowds                     {self.crowds}",
            f"  malformed, skipped         {self.skipped.total()}",
            f"  instances                  {self.instances}",
            f"    with an occluder         {self.occluded} ({self.occluded / max(self.instances, 1):.1%})",
            f"      occluder's share of the pixels of both masks, mean   {self.occluder_share / occluded:.1%}",
            f"      share of the mask that lies under the occluder, mean {self.hidden_share / occluded:.1%}",
        ]
        for title, counts in (("skipped", self.skipped), ("noted", self.noted)):
            lines += [
                f"{title}: {count} x {reason} (first: {self.examples[reason]})"
                for reason, count in counts.most_common()
            ]
        return "\n".join(lines)
