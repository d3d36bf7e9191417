"""Association of boxes from frame to frame by ByteTrack (Zhang et al., ECCV 2022), of the package `trackers`.

supervision had this tracker until its version 0.30; `trackers`, of the same authors, has it now.

Letters: D detections.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Tracklet = Any  # of the package trackers

# Boxes of each class are moved to a place of their own, so that instances of different classes are never associated
# (as for the NMS of all classes at once).
_CLASS_DISTANCE = 1e6


class BoxTracker:
    """ByteTrack with a track from the first frame on; only boxes of one class are associated.

    Attributes:
        tracklets: those of the last frame and of `patience` before it, in the order in which they began. A tracklet is
            the same object as long as it lives.

    Args:
        frame_rate: frames per second.
        new_track_score: lowest score of a detection that begins a track; lower ones only go on with one.
        patience: seconds after which a track without detections ends.

    Raises:
        ImportError: the package trackers is absent; says how to install it.
    """

    def __init__(self, *, frame_rate: float, new_track_score: float, patience: float) -> None:
        try:
            # Loaded with the first video: it takes a second.
            import supervision
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise ImportError(
                f"videos need the package trackers (pip install 'bcnet[video]'), which cannot be imported: {error}"
            ) from error
        self._detections = supervision.Detections
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(patience * 30),
            frame_rate=frame_rate,
            track_activation_threshold=new_track_score,
            high_conf_det_threshold=new_track_score,
            minimum_consecutive_frames=1,
        )

    @property
    def tracklets(self) -> list[Tracklet]:
        return self._tracker.tracks

    def end(self, tracklet: Tracklet) -> None:
        """Ends a track before its patience is over; nothing happens to one that has ended."""
        if tracklet in self._tracker.tracks:
            self._tracker.tracks.remove(tracklet)

    def update(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> list[Tracklet | None]:
        """Associates the detections of the next frame.

        Args:
            boxes: float [D, 4], xyxy in pixels.
            scores: float [D].
            classes: int [D].

        Returns:
            The tracklet of each detection; None of one that belongs to none and begins none.
        """
        before = list(self.tracklets)
        detections = self._detections(
            xyxy=np.asarray(boxes, dtype=np.float64) + _CLASS_DISTANCE * np.asarray(classes)[:, None],
            confidence=np.asarray(scores, dtype=np.float64),
            data={"position": np.arange(len(boxes))},
        )
        tracked = self._tracker.update(detections)
        found: list[Tracklet | None] = [None] * len(boxes)
        if not len(tracked):
            return found
        by_number = {tracklet.tracker_id: tracklet for tracklet in self.tracklets if tracklet.tracker_id >= 0}
        # ByteTrack numbers a track in its second frame. In its first one the tracklet is known by its place: those that
        # begin are appended in the order of their detections, the last ones of the result without a number.
        begun = [tracklet for tracklet in self.tracklets if tracklet not in before]
        positions, numbers = (np.asarray(v).tolist() for v in (tracked.data["position"], tracked.tracker_id))
        unnumbered = [position for position, number in zip(positions, numbers, strict=True) if number < 0]
        found_now = zip(unnumbered[len(unnumbered) - len(begun) :], begun, strict=True)
        for position, tracklet in found_now:
            found[position] = tracklet
        for position, number in zip(positions, numbers, strict=True):
            if number >= 0:
                found[position] = by_number[number]
        return found
