"""Identities of instances through a video, also while others hide them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bcnet.structures import Detections
from bcnet.structures.hidden_track import HiddenTrack
from bcnet.tracking import InstanceTracker
from bcnet.tracking.motion import Motion, covered_share, distance, overlap_of_smaller
from bcnet.tracking.tracker import tracking_boxes

SIZE = (60, 400)


def found(boxes, classes=None, *, front=(), scores=None, **fields):
    """Detections; `front` has pairs (i, j): j lies in front of i."""
    count = len(boxes)
    order = torch.zeros(count, count)
    for i, j in front or ():
        order[i, j] = 0.9
    return Detections(
        SIZE,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.full((count,), 0.9) if scores is None else torch.tensor(scores),
        torch.zeros(count, dtype=torch.int64) if classes is None else torch.tensor(classes),
        occluded_by=None if front is None else order,
        **fields,
    )


def tracks(tracker, *arguments, **options):
    return tracker.update(found(*arguments, **options)).track_ids.tolist()


def walk(tracker, frames, *, knows=True, wall=(100, 10, 300, 50), speed=5, missing=()):
    """A walker of 20 x 20 pixels passes behind a wall: in each frame the track of both (None) and what is hidden."""
    seen = []
    for frame in range(frames):
        x = 20 + speed * frame
        left, right = (x, min(x + 20, wall[0])) if x < wall[0] else (max(x, wall[2]), x + 20)
        boxes, front = [list(wall)], []
        if right - left >= 6 and frame not in missing:
            boxes.append([left, 20, right, 40])
            front = [(1, 0)] if right - left < 20 else []
        tracked = tracker.update(found(boxes, front=front if knows else None))
        numbers = tracked.track_ids.tolist()
        seen.append((numbers[0], numbers[1] if len(numbers) > 1 else None, tracked.hidden_tracks))
    return seen


def test_numbers_stay_with_the_instances():
    tracker = InstanceTracker(frame_rate=30, patience=0.1)
    left, right = [0, 0, 20, 20], [40, 0, 60, 20]
    assert tracks(tracker, [left, right]) == [0, 1]
    # The order of the detections changes, as scores do; both move.
    assert tracks(tracker, [[42, 2, 62, 22], [3, 0, 23, 20]]) == [1, 0]
    # Another class in the same place is another instance.
    assert tracks(tracker, [[42, 2, 62, 22]], [1]) == [2]
    # The left one comes back after a frame without it.
    assert tracks(tracker, [[4, 0, 24, 20]]) == [0]
    for _ in range(4):
        assert tracks(tracker, []) == []
    assert tracks(tracker, [[4, 0, 24, 20]]) == [3]


def test_of_two_candidates_the_nearer_one_keeps_the_number():
    tracker = InstanceTracker()
    tracks(tracker, [[0, 0, 20, 20]])
    assert tracks(tracker, [[6, 0, 26, 20], [1, 0, 21, 20]]) == [1, 0]


def test_detections_of_low_scores_that_begin_no_track_are_dropped():
    tracker = InstanceTracker(new_track_score=0.5)
    boxes = [[0, 0, 20, 20], [40, 0, 60, 20]]
    first = tracker.update(found(boxes, scores=[0.9, 0.3]))
    assert (first.track_ids.tolist(), len(first)) == ([0], 1)
    assert tracks(tracker, boxes, scores=[0.3, 0.3]) == [0]


@pytest.mark.parametrize("knows", [True, False])
def test_a_walker_behind_a_wall_is_reported_and_keeps_its_number(knows):
    seen = walk(InstanceTracker(frame_rate=25), 75, knows=knows)
    assert {numbers[0] for numbers in seen} == {0}
    assert {number for _, number, _ in seen} == {1, None}
    absent = [frame for frame, (_, number, _) in enumerate(seen) if number is None]
    assert len(absent) > 25  # longer than the second that ByteTrack waits
    reported = [frame for frame, (_, _, hidden) in enumerate(seen) if hidden]
    assert reported == absent
    middle = absent[len(absent) // 2]
    (hidden,) = seen[middle][2]
    assert (hidden.track_id, hidden.behind, hidden.label) == (1, 0, 0)
    assert hidden.frames == middle - absent[0] + 1
    assert hidden.box == pytest.approx([20 + 5 * middle, 20, 40 + 5 * middle, 40], abs=5)


def test_byte_track_alone_loses_the_walker():
    seen = walk(InstanceTracker(frame_rate=25, hidden_patience=0), 75)
    assert {number for _, number, _ in seen} == {1, 2, None}
    assert not any(hidden for _, _, hidden in seen)


def test_what_stays_hidden_for_too_long_is_forgotten():
    seen = walk(InstanceTracker(frame_rate=25, hidden_patience=1), 75)
    assert {number for _, number, _ in seen} == {1, 2, None}
    assert sum(bool(hidden) for _, _, hidden in seen) == 25


def test_a_missed_instance_in_front_is_not_hidden():
    tracker = InstanceTracker()
    boxes = [[0, 0, 60, 60], [20, 20, 40, 40]]
    for _ in range(4):
        tracked = tracker.update(found(boxes, front=[(0, 1)]))
    tracked = tracker.update(found(boxes[:1]))
    assert tracked.hidden_tracks == ()
    assert tracks(tracker, boxes) == [0, 1]


def test_a_false_alarm_is_not_hidden():
    tracker = InstanceTracker()
    for _ in range(2):
        tracker.update(found([[0, 0, 60, 60], [20, 20, 40, 40]]))
    assert tracker.update(found([[0, 0, 60, 60]])).hidden_tracks == ()


def test_hidden_tracks_of_another_class_are_not_continued():
    tracker = InstanceTracker()
    wall, small = [0, 0, 60, 60], [20, 20, 40, 40]
    for _ in range(3):
        tracks(tracker, [wall, small], [0, 1])
    assert tracker.update(found([wall])).hidden_tracks[0].track_id == 1
    assert tracks(tracker, [wall, small], [0, 2]) == [0, 2]
    assert tracks(tracker, [wall, small, small], [0, 2, 1]) == [0, 2, 1]


def test_tracking_boxes_go_around_the_amodal_masks():
    amodal = torch.zeros(3, 4, 4)
    amodal[0, 1:3, 0:3] = 1  # of the RoI 0..40 x 0..40: x 0..30, y 10..30
    amodal[1, :, 3:] = 1
    detections = found(
        [[10, 10, 30, 30], [100, 10, 120, 30], [200, 0, 220, 20]], maps={"occludee_amodal": amodal}, roi_scale=2.0
    )
    assert tracking_boxes(detections).tolist() == [[0, 10, 30, 30], [100, 0, 130, 40], [200, 0, 220, 20]]
    assert tracking_boxes(found([[1, 2, 3, 4]])).tolist() == [[1, 2, 3, 4]]
    assert tracking_boxes(found([])).shape == (0, 4)


def test_the_expected_box_continues_the_whole_ones():
    motion = Motion()
    for frame in range(4):
        motion.add(frame, np.array([10.0 * frame, 0, 10 * frame + 20, 30]), whole=True)
    motion.add(4, np.array([40.0, 0, 45, 30]), whole=False)
    assert motion.expected(6).tolist() == pytest.approx([60, 0, 80, 30])
    cut = Motion()
    cut.add(0, np.array([0.0, 0, 5, 5]), whole=False)
    assert cut.expected(9).tolist() == [0, 0, 5, 5]


def test_measures_of_boxes():
    box, other = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 25, 10])
    assert covered_share(box, other, (100, 100)) == 0.5
    assert covered_share(np.array([-10.0, 0, 10, 10]), other, (100, 100)) == 0.5  # of the part inside
    assert covered_share(np.array([-11.0, 0, 10, 10]), other, (100, 100)) == 0
    assert overlap_of_smaller(box, other) == 0.5
    assert overlap_of_smaller(box, np.zeros(4)) == 0
    assert distance(box, np.array([3.0, 4, 13, 14])) == pytest.approx(5 / 200**0.5)


def test_hidden_tracks_are_part_of_the_detections():
    hidden = HiddenTrack(3, 1, 0, (10.0, 20.0, 30.0, 40.0), 5)
    detections = found([[0, 0, 20, 20]], hidden_tracks=(hidden,))
    assert detections != found([[0, 0, 20, 20]]) and detections[:0].hidden_tracks == (hidden,)
    content = json.loads(detections.to_json())
    assert content["hidden_tracks"] == [
        {"track_id": 3, "behind": 1, "category_id": 1, "bbox": [10, 20, 20, 20], "frames": 5}
    ]
    assert "hidden_tracks" not in json.loads(found([[0, 0, 20, 20]]).to_json())
    (scaled,) = detections.rescaled((120, 1200)).hidden_tracks
    assert scaled == HiddenTrack(3, 1, 0, (30.0, 40.0, 90.0, 80.0), 5)
