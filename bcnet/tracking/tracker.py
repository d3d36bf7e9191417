"""Tracking of instances by ByteTrack, with identities that survive being hidden behind another instance.

Letters: D detections, M mask side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from bcnet.maps import OCCLUDEE_AMODAL
from bcnet.structures import Detections
from bcnet.structures.hidden_track import HiddenTrack
from bcnet.structures.occlusion_graph import EDGE_THRESHOLD
from bcnet.tracking.byte_track import BoxTracker, Tracklet
from bcnet.tracking.motion import Motion, covered_share, distance, overlap_of_smaller, touch

CONTINUING_SCORE = 0.1  # lowest score of detections that go on with a track, as in ByteTrack
# An instance without a detection is hidden if another one covers this share of the box where it is expected: less, if
# the other one is known to lie in front.
COVERED, COVERED_BY_KNOWN = 0.5, 0.3
CONFIRMED = 3  # frames that a track must have been seen in, to be hidden afterwards: others may be false alarms
TOUCHING = 0.1  # share of a box's sides: one that is so near may cut it
REVIVED_OVERLAP = 0.3  # of the box that reappears with the one where the instance is expected
REVIVED_DISTANCE = 0.75  # of their centres, in diagonals, where it reappears beside what hides it


@dataclass
class _Track:
    """A track, visible or not.

    Attributes:
        number, label: as in `HiddenTrack`.
        seen: the last frame with a detection of it.
        detections: number of frames with one.
        motion: its whole boxes.
        in_front: numbers of the tracks that are known to lie in front of it.
        behind: the track that hides it; None of one that is not hidden.
        covered: the last frame in which another track covered it.
    """

    number: int
    label: int
    seen: int = 0
    detections: int = 0
    motion: Motion = field(default_factory=Motion)
    in_front: set[int] = field(default_factory=set)
    behind: int | None = None
    covered: int = 0


class InstanceTracker:
    """Numbers that stay with an instance from frame to frame (`Detections.track_ids`), counted from 0.

    `BoxTracker` associates boxes of one class from frame to frame, amodal ones where the detections have amodal masks.
    A track without a detection, whose expected box another track covers, is hidden behind that one: it is reported
    (`Detections.hidden_tracks`) as long as it is covered, and a detection that appears there, or beside what hides it,
    goes on with its number. Who lies in front is taken from the relations of the detections (`Detections.occluded_by`),
    as they were last seen; without them any instance may hide any other.

    Args:
        frame_rate: frames per second.
        new_track_score: lowest score of a detection that begins a track; detections of lower scores only go on with
            one, and are dropped otherwise.
        patience: seconds after which a track ends that has no detection and is not hidden.
        hidden_patience: seconds after which a hidden track ends; 0 is ByteTrack alone.

    Raises:
        ImportError: the package trackers is absent.
    """

    def __init__(
        self,
        *,
        frame_rate: float = 30.0,
        new_track_score: float = 0.0,
        patience: float = 1.0,
        hidden_patience: float = 4.0,
    ) -> None:
        self._boxes = BoxTracker(frame_rate=frame_rate, new_track_score=new_track_score, patience=patience)
        self._patience = max(round(patience * frame_rate), 1)
        self._hidden_patience = round(hidden_patience * frame_rate)
        self._frame = 0
        self._next = 0
        self._tracks: dict[Tracklet, _Track] = {}  # that ByteTrack knows
        self._hidden: dict[int, _Track] = {}  # by number; ByteTrack ends them earlier

    def update(self, detections: Detections) -> Detections:
        """The detections of the next frame that belong to a track, with `track_ids` and `hidden_tracks`."""
        self._frame += 1
        boxes = tracking_boxes(detections)
        scores, labels = detections.scores.cpu().numpy(), detections.classes.cpu().numpy()
        found = self._boxes.update(boxes, scores, labels)
        kept = [position for position, tracklet in enumerate(found) if tracklet is not None]
        if len(kept) < len(detections):
            detections, boxes, labels = detections[kept], boxes[kept], labels[kept]
        tracklets = [found[position] for position in kept]
        self._begin(tracklets, boxes, labels.tolist())
        tracks = [self._tracks[tracklet] for tracklet in tracklets]
        self._see(tracks, boxes, detections)
        self._hide(tracklets, dict(zip((track.number for track in tracks), boxes, strict=True)), detections.image_size)
        numbers = torch.tensor([track.number for track in tracks], dtype=torch.int64, device=detections.boxes.device)
        return replace(detections, track_ids=numbers, hidden_tracks=tuple(self._reports()))

    # -- Tracks that begin, or go on after they were hidden ----------------------------------------

    def _begin(self, tracklets: list[Tracklet], boxes: np.ndarray, labels: list[int]) -> None:
        begun = [i for i, tracklet in enumerate(tracklets) if tracklet not in self._tracks]
        for tracklet in tracklets:
            if tracklet in self._tracks:
                self._hidden.pop(self._tracks[tracklet].number, None)
        candidates = [
            (likeness, i, track.number)
            for i in begun
            for track in self._hidden.values()
            if track.label == labels[i] and (likeness := self._likeness(track, boxes[i], tracklets, boxes)) > 0
        ]
        for _, i, number in sorted(candidates, reverse=True):
            if number in self._hidden and tracklets[i] not in self._tracks:
                self._continue(self._hidden.pop(number), tracklets[i])
        for i in begun:
            if tracklets[i] not in self._tracks:
                self._tracks[tracklets[i]] = _Track(self._next, labels[i])
                self._next += 1

    def _continue(self, track: _Track, tracklet: Tracklet) -> None:
        """Makes a new tracklet that of a hidden track; what ByteTrack still expected of the track ends."""
        for former in [former for former, other in self._tracks.items() if other is track]:
            self._boxes.end(former)
            del self._tracks[former]
        self._tracks[tracklet] = track

    def _likeness(self, track: _Track, box: np.ndarray, tracklets: list[Tracklet], boxes: np.ndarray) -> float:
        """How well a box that appears continues a hidden track; 0 if it does not."""
        expected = track.motion.expected(self._frame)
        away = distance(expected, box)
        if overlap_of_smaller(expected, box) >= REVIVED_OVERLAP:
            return 2 - away
        for tracklet, front in zip(tracklets, boxes, strict=True):
            known = self._tracks.get(tracklet)
            if known is not None and known.number == track.behind:
                beside = overlap_of_smaller(front, box) > 0
                return 1 - away if beside and away <= REVIVED_DISTANCE else 0.0
        return 0.0

    # -- Tracks that are seen ----------------------------------------------------------------------

    def _see(self, tracks: list[_Track], boxes: np.ndarray, detections: Detections) -> None:
        whole = self._note_order(tracks, boxes, detections)
        for track, box, is_whole in zip(tracks, boxes, whole, strict=True):
            track.seen, track.behind = self._frame, None
            track.detections += 1
            track.motion.add(self._frame, box, whole=is_whole)

    def _note_order(self, tracks: list[_Track], boxes: np.ndarray, detections: Detections) -> list[bool]:
        """Notes who lies in front of whom, and gives for each detection whether its box shows it whole."""
        touching = [
            [j for j, other in enumerate(boxes) if j != i and touch(box, other, TOUCHING)]
            for i, box in enumerate(boxes)
        ]
        if detections.occluded_by is None:
            cut = [bool(others) for others in touching]
        else:
            confidence = detections.occluded_by.cpu().numpy()
            front = (confidence >= EDGE_THRESHOLD) & (confidence > confidence.T)
            for i, j in zip(*(indices.tolist() for indices in np.nonzero(front)), strict=True):
                tracks[i].in_front.add(tracks[j].number)
                tracks[j].in_front.discard(tracks[i].number)
            # An order that was noticed before holds where it goes unnoticed.
            cut = [
                bool(front[i].any()) or any(tracks[j].number in tracks[i].in_front for j in others)
                for i, others in enumerate(touching)
            ]
        has_whole_boxes = OCCLUDEE_AMODAL.name in detections.maps and detections.roi_scale > 1
        return [True] * len(cut) if has_whole_boxes else [not is_cut for is_cut in cut]

    # -- Tracks that are not seen ------------------------------------------------------------------

    def _hide(self, seen: list[Tracklet], boxes: dict[int, np.ndarray], image_size: tuple[int, int]) -> None:
        """Decides for each track without a detection whether it is hidden, by the boxes of the frame's tracks."""
        self._tracks = {tracklet: self._tracks[tracklet] for tracklet in self._boxes.tracklets}
        candidates = dict(self._hidden)
        for tracklet, track in self._tracks.items():
            if tracklet not in seen and track.detections >= CONFIRMED and self._hidden_patience:
                candidates[track.number] = track
        for number, track in candidates.items():
            occluder = self._occluder(track, boxes, image_size)
            if occluder is not None:
                track.behind, track.covered = occluder, self._frame
                self._hidden[number] = track
            is_over = self._frame - track.seen > self._hidden_patience
            if is_over or self._frame - track.covered > self._patience:
                self._hidden.pop(number, None)

    def _occluder(self, track: _Track, boxes: dict[int, np.ndarray], image_size: tuple[int, int]) -> int | None:
        """The number of the track that covers a hidden one's expected box the most; None if none covers enough."""
        expected = track.motion.expected(self._frame)
        visible = {t.number: t for t in self._tracks.values()}
        shares = []
        for number, box in boxes.items():
            is_known = number in track.in_front
            if track.number in visible[number].in_front or number == track.number:
                continue
            share = covered_share(expected, box, image_size)
            if share >= (COVERED_BY_KNOWN if is_known else COVERED):
                shares.append((is_known, share, number))
        return max(shares)[2] if shares else None

    def _reports(self) -> Iterator[HiddenTrack]:
        for track in self._hidden.values():
            if track.covered == self._frame and track.behind is not None:
                x0, y0, x1, y1 = track.motion.expected(self._frame).tolist()
                yield HiddenTrack(track.number, track.behind, track.label, (x0, y0, x1, y1), self._frame - track.seen)


def tracking_boxes(detections: Detections) -> np.ndarray:
    """The boxes to associate: float64 [D, 4], xyxy. Around the visible box and, where it is known, the amodal mask."""
    boxes = detections.boxes.cpu().double()
    amodal = detections.amodal_mask
    if amodal is None or not len(boxes):
        return boxes.numpy()
    inside = amodal.cpu() >= detections.mask_threshold
    rois = detections.map_boxes.cpu().double()
    whole = boxes.clone()
    for axis, pixels in enumerate((inside.any(dim=1), inside.any(dim=2))):  # columns, rows: [D, M]
        side = pixels.shape[1]
        first = pixels.int().argmax(dim=1)
        last = side - pixels.flip(1).int().argmax(dim=1)
        size = (rois[:, axis + 2] - rois[:, axis]) / side
        low, high = rois[:, axis] + first * size, rois[:, axis] + last * size
        some = pixels.any(dim=1)
        whole[:, axis] = torch.where(some, torch.minimum(low, boxes[:, axis]), boxes[:, axis])
        whole[:, axis + 2] = torch.where(some, torch.maximum(high, boxes[:, axis + 2]), boxes[:, axis + 2])
    return whole.numpy()
