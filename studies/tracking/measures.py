"""What is measured of a tracked clip: identity switches, identities after an occlusion, reports of hidden tracks.

Letters: G true objects, D detections.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
from torchvision.ops import box_iou
from trackers.eval.clear import compute_clear_metrics
from trackers.eval.identity import compute_identity_metrics

from bcnet.data.synthetic import SceneObject
from bcnet.structures import Detections
from studies.tracking.simulation import Noise, is_visible

MATCHED = 0.5  # IoU of the visible boxes
EPISODE = 3  # frames for which an object must have been hidden, for its identity to be asked for afterwards


@dataclass
class ClipMeasures:
    """Collects the frames of a clip; `counts` sums up.

    Attributes:
        noise: says which objects are visible.
    """

    noise: Noise = field(default_factory=Noise)
    _truth: list[np.ndarray] = field(default_factory=list)  # identities of the visible objects of each frame
    _tracks: list[np.ndarray] = field(default_factory=list)
    _overlaps: list[np.ndarray] = field(default_factory=list)
    _last: dict[int, int] = field(default_factory=dict)  # the last track of each object
    _absent: Counter[int] = field(default_factory=Counter)  # frames since an object was visible
    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, objects: list[SceneObject], detections: Detections) -> None:
        """Adds a frame and its tracked detections."""
        assert detections.track_ids is not None
        visible = [o for o in objects if is_visible(o, self.noise)]
        boxes = [[o.bbox[0], o.bbox[1], o.bbox[0] + o.bbox[2], o.bbox[1] + o.bbox[3]] for o in visible]
        truth = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        overlaps = box_iou(truth, detections.boxes.float()).numpy()
        same = np.array([o.category_id - 1 for o in visible]).reshape(-1, 1) == detections.classes.numpy()
        overlaps = overlaps * same
        tracks = detections.track_ids.numpy()
        self._truth.append(np.array([o.depth for o in visible], dtype=np.int64))
        self._tracks.append(tracks.astype(np.int64))
        self._overlaps.append(overlaps)
        self._note_reports(objects, detections)
        for position, instance in enumerate(visible):
            candidates = np.flatnonzero(overlaps[position] >= MATCHED)
            if not len(candidates):
                continue
            track = int(tracks[candidates[overlaps[position, candidates].argmax()]])
            if self._absent[instance.depth] >= EPISODE and instance.depth in self._last:
                self._counts["occlusions"] += 1
                self._counts["identities kept"] += track == self._last[instance.depth]
            self._last[instance.depth] = track
            self._absent[instance.depth] = 0

    def _note_reports(self, objects: list[SceneObject], detections: Detections) -> None:
        reports = {track.track_id: track for track in detections.hidden_tracks}
        track_of = {self._last[o.depth]: o for o in objects if o.depth in self._last}
        for instance in objects:
            if is_visible(instance, self.noise):
                continue
            self._absent[instance.depth] += 1
            if instance.depth not in self._last:
                continue
            self._counts["hidden frames"] += 1
            report = reports.get(self._last[instance.depth])
            if report is not None:
                self._counts["reported"] += 1
                front = track_of.get(report.behind)
                covers = front is not None and front.depth < instance.depth
                self._counts["reported behind the right one"] += bool(
                    covers and front is not None and (front.amodal_mask & instance.amodal_mask).any()
                )
        for number in reports:
            self._counts["reports"] += 1
            owner = track_of.get(number)
            self._counts["reports of hidden objects"] += owner is not None and not is_visible(owner, self.noise)

    def counts(self) -> Counter[str]:
        """Sums of the clip: those of CLEAR and of the identity metrics (`trackers.eval`) too."""
        arguments = self._truth, self._tracks, self._overlaps
        clear = compute_clear_metrics(*arguments, threshold=MATCHED)
        identity = compute_identity_metrics(*arguments, threshold=MATCHED)
        total = Counter({key: int(value) for key, value in self._counts.items()})
        total["truth"] = sum(map(len, self._truth))
        total["switches"] = int(clear["IDSW"])
        total["tracks"] = len({int(number) for numbers in self._tracks for number in numbers})
        total["objects"] = len({int(number) for numbers in self._truth for number in numbers})
        for key in ("IDTP", "IDFP", "IDFN"):
            total[key] = int(identity[key])
        return total


def summary(counts: Counter[str]) -> dict[str, float | int]:
    """The figures of the report, from the sums of all clips."""
    found = 2 * counts["IDTP"] + counts["IDFP"] + counts["IDFN"]
    return {
        "objects": counts["objects"],
        "tracks": counts["tracks"],
        "identity switches": counts["switches"],
        "IDF1": round(200 * counts["IDTP"] / max(found, 1), 1),
        "occlusions": counts["occlusions"],
        "identities kept": counts["identities kept"],
        "hidden frames": counts["hidden frames"],
        "reported": counts["reported"],
        "reported behind the right one": counts["reported behind the right one"],
        "reports": counts["reports"],
        "reports of hidden objects": counts["reports of hidden objects"],
    }
